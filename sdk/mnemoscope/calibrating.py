"""From lists of prompts to a calibration."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from mnemoscope_runtime.errors import BackendUnavailable, InputError

from .calibration import Calibration, digest
from .conformal import allowed_above
from .detector import Detector
from .detectors import Features, Fit

__all__ = ["calibrate", "distinct", "learn"]

_BATCH = 32
Progress = Callable[[int, int], None]


def calibrate(
    detector: Detector,
    benign: Sequence[str],
    *,
    positives: Sequence[str] = (),
    fpr: float = 0.01,
    delta: float = 0.05,
    steps: Sequence[int] = (1,),
    noises: Sequence[int] | None = None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> list[Calibration]:
    """Measure benign prompts and set thresholds that keep a promise; see `Calibration`.

    A detector that learns does so from half of the prompts, chosen by their hashes, and is
    calibrated on the other half: what a p-value compares with was not learned from.

    Args:
        detector: What to calibrate.
        benign: Prompts that the model did not memorise, drawn like those to be screened.
        positives: Prompts that it did memorise, if some are known: for the true-positive rate, and
            for the weights of a detector that learns.
        fpr: False-positive rate to promise, in 0..1.
        delta: The chance that the promise is broken, in 0..1.
        steps: Numbers of steps to calibrate.
        noises: Numbers of noises; all of the bank by default.
        progress: Told how many measurements of how many are done.
        tell: Told of prompts that are left out.

    Returns:
        One calibration for each number of steps and noises.

    Raises:
        InputError: too few prompts for the promise, or a setting that the bundle does not have.
        NumericsError: a feature is NaN or infinite.
    """
    counts = sorted(set(noises or (detector.screener.noises,)))
    lengths = sorted(set(steps))
    for k, m in itertools.product(lengths, counts):
        detector.setting(steps=k, noises=m)  # what cannot be fails before measuring for an hour
    benign, positives = distinct(benign, positives, tell)
    learns = detector.statistic.is_fitted
    known = len(benign) - len(benign) // 2 if learns else len(benign)
    allowed_above(known, fpr, delta)  # before measuring for an hour
    # one step has an engine of its own; the others are the beginnings of the longest
    groups = [group for group in (lengths[:1], lengths[1:]) if group]
    if lengths[0] != 1:
        groups = [lengths]
    total = len(groups) * (len(benign) + len(positives))
    found: list[Calibration] = []
    done = 0
    for group in groups:

        def measure(prompts: Sequence[str], group: list[int] = group) -> Features:
            nonlocal done
            parts = []
            for i in range(0, len(prompts), _BATCH):
                batch = prompts[i : i + _BATCH]
                parts.append(detector.measure(batch, steps=group[-1], noises=counts[-1]))
                done += len(batch)
                progress(done, total)
            return np.concatenate(parts)

        others = measure(benign)
        memorized = measure(positives) if positives else others[:0]
        fit, kept, judged = None, slice(None), slice(None)
        if learns:
            fit = learn(others[1::2], memorized[1::2])
            kept = judged = slice(None, None, 2)
        score = detector.statistic.score
        for k in group:
            for m in counts:
                means = score(others[kept, :m, :k], fit).mean(1).tolist()
                found.append(
                    Calibration.of(
                        detector.setting(steps=k, noises=m),
                        dict(zip(map(digest, benign[kept]), means, strict=True)),
                        positives=score(memorized[judged, :m, :k], fit).mean(1).tolist(),
                        fpr=fpr,
                        delta=delta,
                        fit=fit,
                    )
                )
    return found


def distinct(
    benign: Sequence[str], positives: Sequence[str], tell: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Each prompt once, in the order of their hashes, and none that is in both lists.

    Raises:
        InputError: no benign prompt is left, or one is empty.
    """
    found = {digest(prompt): prompt for prompt in benign}
    known = {digest(prompt): prompt for prompt in positives}
    if digest("") in found:
        raise InputError(
            "A benign prompt is empty. The model is compared with itself there, which says nothing "
            "of real prompts: take it out."
        )
    if repeated := len(benign) - len(found):
        tell(f"{repeated} benign prompts are repetitions; each counts once.")
    if both := found.keys() & known.keys():
        tell(
            f"{len(both)} benign prompts are among the memorised ones, such as "
            f"{found[min(both)]!r}; they are left out of the benign."
        )
    kept = [found[key] for key in sorted(found.keys() - known.keys())]
    if not kept:
        raise InputError("There are no benign prompts to calibrate on. Give a file with some.")
    return kept, [known[key] for key in sorted(known)]


def learn(benign: Features, memorized: Features) -> Fit:
    """Standardise on benign prompts; weight equally, or by logistic regression.

    Args:
        benign: # [prompt, noise, step, feature]
        memorized: Likewise; without any, weights are equal.

    Raises:
        InputError: benign prompts do not differ in a feature.
        BackendUnavailable: scikit-learn is not installed.
    """
    std = benign.std((0, 1))
    if not (std > 0).all():
        raise InputError(
            "Benign prompts do not differ in what the detector measures, so it learns nothing "
            "from them. Give more, and different ones."
        )
    mean, count = benign.mean((0, 1)), benign.shape[-1]
    fit = Fit(_rows(mean), _rows(std), (1.0,) * count)
    if count == 1 or not len(memorized):
        return fit
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise BackendUnavailable(
            f"Weights come from scikit-learn: {error}. Install it with "
            "`pip install 'mnemoscope[calibrate]'`, or leave out --positives."
        ) from None
    z = [fit.standardized(part).mean((1, 2)) for part in (benign, memorized)]
    labels = np.repeat([0, 1], [len(part) for part in z])
    model = LogisticRegression(class_weight="balanced").fit(np.concatenate(z), labels)
    return Fit(fit.mean, fit.std, tuple(float(w) for w in model.coef_[0]))


def _rows(values: Features) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{x:.7g}") for x in row) for row in values)

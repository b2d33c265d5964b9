"""From lists of prompts to a calibration."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

from ..detector import Detector
from ..detectors import Features, Fit, Statistic
from ..prompts.printable import counted
from ..screening.stages import Stage, checked_scores
from ..screening.weighting import weighting
from .calibration import Calibration, digest, name_of
from .cascade import Gate, level
from .conformal import allowed_above

__all__ = ["Digests", "calibrate", "check_texts", "distinct", "learn"]

_BATCH = 32
Progress = Callable[[int, int], None]
Digests = Callable[[Sequence[str]], Sequence[bytes]]
Mask = NDArray[np.bool_]


def calibrate(
    detector: Detector,
    benign: Sequence[str],
    *,
    positives: Sequence[str] = (),
    fpr: float = 0.01,
    delta: float = 0.05,
    steps: Sequence[int] = (1,),
    noises: Sequence[int] | None = None,
    among: int = 1,
    weigh: bool = True,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> list[Calibration]:
    """Measure benign prompts and set thresholds that keep a promise; see `Calibration`.

    A detector that learns does so from half of the prompts, chosen by their hashes, and is
    calibrated on the other half: what a p-value compares with was not learned from. A cascade
    learns what its first stage clears; the second measures only what is left.

    Args:
        detector: What to calibrate.
        benign: Prompts that the model did not memorise, drawn like those to be screened.
        positives: Prompts that it did memorise, if some are known: for the true-positive rate, and
            for the weights of a detector that learns.
        fpr: False-positive rate to promise, in 0..1.
        delta: The chance that the promise is broken, in 0..1.
        steps: Numbers of steps to calibrate.
        noises: Numbers of noises; all of the bank by default.
        among: Among how many settings one is to be chosen; each threshold has delta / among.
        weigh: Whether a detector that learns weighs its parts by half of the positives; if not,
            the parts weigh the same, and all positives are judged.
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
    statistic, first, before = detector.statistic, detector.first, detector.before
    weighs = statistic.is_fitted or (before is not None and before.statistic.is_fitted)
    digests = detector.screener.tokenizer.digests
    kept = distinct(benign, positives, digests, tell)
    for name, prompts in zip(("benign", "memorised"), kept, strict=True):
        if many := sum(bool(weighting(prompt)) for prompt in prompts):
            tell(
                f"{many:,} of {counted(len(prompts), f'{name} prompt')} "
                f"{'holds' if many == 1 else 'hold'} signs that some pipelines make weights, "
                "choices, adapters or parts of. They were read literally: if yours reads them "
                "otherwise, calibrate on what it draws."
            )
    lists = _Lists.of(
        *kept,
        teach=weighs or before is not None,
        weigh=weighs and weigh,
    )
    # before measuring for an hour
    compared, given = (int((rows & ~lists.memorized).sum()) for rows in (lists.judged, lists.all))
    try:
        above = allowed_above(compared, fpr, delta / among)
    except InputError as error:
        if compared == given:
            raise
        raise InputError(
            f"{error} ({given:,} were given: every second one teaches the detector, and is not "
            "counted. Give twice as many.)"
        ) from None
    settings = {(k, m): detector.setting(steps=k, noises=m) for k in lengths for m in counts}
    # one step has a graph of its own; the others are the beginnings of the longest
    groups = [group for group in (lengths[:1], lengths[1:]) if group]
    if lengths[0] != 1:
        groups = [lengths]
    meter = _Meter(progress, (len(groups) + (before is not None)) * len(lists.prompts))
    left, sifted = lists, None
    if first is not None and before is not None:
        sifted = _Sifted.of(lists, before, first.clear, meter)
        sifted.require(above, fpr)
        left = lists.only((sifted.passed & lists.judged) | (lists.taught & statistic.is_fitted))
        meter.total = meter.done + len(groups) * len(left.prompts)
    judged = lists.only(lists.judged & ~lists.memorized).prompts
    names = [name_of(read) for read in digests(judged)]
    memorized = lists.memorized[lists.judged]
    found: list[Calibration] = []
    for group in groups:
        look = partial(detector.measure, steps=group[-1], noises=counts[-1])
        features, fit = _learned(left, statistic, look, meter)
        for k, m in itertools.product(group, counts):
            means, gate = (
                checked_scores(statistic, features[left.judged, :m, :k], fit).mean(1),
                None,
            )
            if sifted is not None:
                gate = sifted.gate(means[~left.memorized[left.judged]])
                means = gate.joint(sifted.scores[lists.judged], means)
            found.append(
                Calibration.of(
                    settings[k, m],
                    dict(zip(names, means[~memorized].tolist(), strict=True)),
                    positives=means[memorized].tolist(),
                    fpr=fpr,
                    delta=delta,
                    fit=fit,
                    gate=gate,
                    among=among,
                    named_by="tokens",
                )
            )
    return found


@dataclass(frozen=True, eq=False)
class _Lists:
    """Benign and memorised prompts in one list, each in the order of their hashes."""

    prompts: list[str]
    memorized: Mask  # [prompt]
    taught: Mask  # whether something is learned from it; the others are judged. [prompt]

    @classmethod
    def of(cls, benign: list[str], memorized: list[str], *, teach: bool, weigh: bool) -> _Lists:
        """Every second benign prompt teaches if `teach`, every second memorised one if `weigh`."""
        every_second = [
            (np.arange(len(part)) % 2 == 1) & learns
            for part, learns in ((benign, teach), (memorized, weigh))
        ]
        known = np.arange(len(benign) + len(memorized)) >= len(benign)
        return cls([*benign, *memorized], known, np.concatenate(every_second))

    @property
    def all(self) -> Mask:
        return np.ones_like(self.taught)

    @property
    def judged(self) -> Mask:
        return ~self.taught

    def only(self, rows: Mask) -> _Lists:
        kept = list(itertools.compress(self.prompts, rows))
        return _Lists(kept, self.memorized[rows], self.taught[rows])


@dataclass(eq=False)
class _Meter:
    progress: Progress
    total: int
    done: int = 0

    def measure(self, prompts: list[str], look: Callable[[list[str]], Features]) -> Features:
        parts = []
        for i in range(0, len(prompts), _BATCH):
            parts.append(look(prompts[i : i + _BATCH]))
            self.done += len(parts[-1])
            self.progress(self.done, self.total)
        return np.concatenate(parts)


def _learned(
    lists: _Lists, statistic: Statistic, look: Callable[[list[str]], Features], meter: _Meter
) -> tuple[Features, Fit | None]:
    """Features of all prompts, and what some of them taught."""
    features, fit = meter.measure(lists.prompts, look), None
    if statistic.is_fitted:
        taught, memorized = lists.taught, lists.memorized
        fit = learn(features[taught & ~memorized], features[taught & memorized])
    return features, fit


@dataclass(frozen=True, eq=False)
class _Sifted:
    """What the first stage of a cascade made of the lists."""

    lists: _Lists
    scores: NDArray[np.float64]  # [prompt]
    level: float
    fit: Fit | None

    @classmethod
    def of(cls, lists: _Lists, stage: Stage, clear: float, meter: _Meter) -> _Sifted:
        features, fit = _learned(lists, stage.statistic, stage.measure, meter)
        scores = checked_scores(stage.statistic, features, fit).mean(1)
        return cls(lists, scores, level(scores[lists.taught & ~lists.memorized], clear), fit)

    @property
    def passed(self) -> Mask:
        return self.scores > self.level

    def gate(self, second: NDArray[np.float64]) -> Gate:
        """The gate, given second scores of the benign prompts that it lets through."""
        return Gate(self.level, float(second.min()), self.fit)

    def require(self, above: int, fpr: float) -> None:
        judged = self.lists.judged & ~self.lists.memorized
        left = int(self.passed[judged].sum())
        if left <= above:
            raise InputError(
                f"The first stage clears all but {left} of "
                f"{counted(judged.sum(), 'benign prompt')}, and a false-positive rate of "
                f"{fpr:.3g} lets {above} of them be flagged: the second stage would decide "
                "nothing. Clear fewer (--clear)."
            )


def distinct(
    benign: Sequence[str],
    positives: Sequence[str],
    digests: Digests,
    tell: Callable[[str], None],
) -> tuple[list[str], list[str]]:
    """Each prompt once, in the order of their texts' hashes, and none that is in both lists.

    Args:
        benign: Prompts that the model did not memorise.
        positives: Prompts that it did.
        digests: What tells prompts apart: of texts, digests of what the model reads of them.
        tell: Told of prompts that are left out.

    Raises:
        InputError: no benign prompt is left, one is empty, or one is no text.
    """
    check_texts(benign)
    check_texts(positives)
    found, known = _by_digest(benign, digests), _by_digest(positives, digests)
    [empty] = digests([""])
    if empty in found:
        raise InputError(
            f"A benign prompt ({found[empty]!r:.80}) is empty, or to the model the same as the "
            "empty one. It is compared with itself there, which says nothing of real prompts: "
            "take it out."
        )
    if repeated := len(benign) - len(found):
        tell(
            f"Each benign prompt counts once: {counted(repeated, 'prompt')} left out, to the model "
            f"the same as {'another' if repeated == 1 else 'others'}."
        )
    if both := found.keys() & known.keys():
        tell(
            f"Left out of the benign: {counted(len(both), 'prompt')} among the memorised ones, "
            f"such as {min((found[key] for key in both), key=digest)!r}."
        )
    kept = [prompt for key, prompt in found.items() if key not in known]
    if not kept:
        raise InputError("There are no benign prompts to calibrate on. Give some.")
    return kept, [*known.values()]


def _by_digest(prompts: Sequence[str], digests: Digests) -> dict[bytes, str]:
    """One text of each prompt, by what is read of it; which one, and their order, hashes say."""
    texts = sorted(set(prompts), key=digest)
    found: dict[bytes, str] = {}
    for key, text in zip(digests(texts), texts, strict=True):
        found.setdefault(key, text)
    return found


def check_texts(prompts: Sequence[str]) -> None:
    """Refuse prompts that are not texts in a list.

    Raises:
        InputError: they are not.
    """
    if isinstance(prompts, str):
        raise InputError("Prompts come in a list, not as one text. Wrap the one you have.")
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(
                f"Prompt {place} is {prompt!r:.80} ({type(prompt).__name__}), not text. Give every "
                "prompt as text."
            )


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
            f"{pip_install('calibrate')}, or leave out --positives."
        ) from None
    z = [fit.standardized(part).mean((1, 2)) for part in (benign, memorized)]
    labels = np.repeat([0, 1], [len(part) for part in z])
    model = LogisticRegression(class_weight="balanced").fit(np.concatenate(z), labels)
    return Fit(fit.mean, fit.std, tuple(float(w) for w in model.coef_[0]))


def _rows(values: Features) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{x:.7g}") for x in row) for row in values)

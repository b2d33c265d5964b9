"""A threshold that was measured on one backend, carried over to another that agrees with it.

A threshold t promises that few benign prompts score above it. Where every score of the other
backend is within e of this one's, P(other > t) <= P(this > t - e), and the promise holds for the
other as well if no more of the calibrated scores lie above t - e than above t. So e is measured on
prompts, and a calibration is carried only if none of its scores lies within e of its threshold.

How far two backends differ on prompts to come is only known from those that were measured: e is
`SAFETY` times the largest difference among them. `MARGIN` puts a threshold a relative 1e-4 above
the benign score that sets it. Two backends in float32 differ by a relative 1e-6 or so, well below a
tenth of that; a lower precision differs by more, and has to be calibrated itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Backend, BackendOptions
from mnemoscope_runtime.backends import check_name
from mnemoscope_runtime.errors import CalibrationError, InputError
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.wording import counted

from ..detectors import find_statistic
from ..screening.opening import open_screener
from ..screening.stages import Stage
from ..shipped import bundle_at
from .calibration import SAFETY, Calibration, Carried
from .file import CalibrationFile
from .making import Progress, check_texts
from .remedies import calibrate_command

__all__ = ["carry"]

_BATCH = 32
Scores = NDArray[np.float64]  # [prompt]


def carry(
    file: CalibrationFile,
    bundle: str | Path,
    *,
    source: str | Backend,
    target: str | Backend,
    prompts: Sequence[str] = (),
    options: BackendOptions = BackendOptions(),  # noqa: B008  # frozen
    trust: str | Path | None = None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> list[Calibration]:
    """Carry the calibrations of one backend over to another, where both agree.

    Args:
        file: The calibrations of the bundle.
        bundle: The bundle's directory.
        source: The backend they were made on.
        target: The other.
        prompts: What to compare both on, besides the bundle's probes: more tell more. The benign
            prompts of the calibration do well.
        options: What the backends are told, each what it takes.
        trust: File of a public key: only a bundle that it signed is opened.
        progress: Told how many measurements of how many are done.
        tell: Told which settings cannot be carried over, and why.

    Returns:
        Calibrations of the other backend; each says in `carried` where it comes from.

    Raises:
        InputError: both are one backend, or prompts are no texts.
        CalibrationError: nothing can be carried over; or the calibration is another bundle's.
        BackendError: a backend cannot be used, or the other is farther from PyTorch on the bundle's
            probes than the bundle allows.
        NumericsError: a score is NaN or infinite.
    """
    check_options("a path", bundle=bundle)
    path = bundle_at(bundle)
    check_texts(prompts)
    first, second = (each if isinstance(each, str) else each.name for each in (source, target))
    if first == second:
        raise InputError(f"{first} needs nothing carried over from itself. Name two backends.")
    named = [each for each in (source, target) if isinstance(each, str)]
    for name in named:
        if name.partition(":")[0] == "auto":
            raise InputError(
                "auto is whichever backend is the fastest, and a threshold is of one. Name it: "
                "`mnemoscope doctor` shows which work here."
            )
        check_name(name)
    options.check(*named)
    chosen = _chosen(file, first, second, tell)
    kept: list[list[Scores]] = []
    texts: list[str] = []
    for backend, name in ((source, first), (target, second)):
        told = options.taken_by(name) if isinstance(backend, str) else BackendOptions()
        with open_screener(path, backend, told, (), trust=trust) as screener:
            file.check(screener.bundle.id, path)
            manifest = screener.bundle.manifest
            given = [*(each.prompt for each in manifest.probes), *prompts]
            texts = screener.tokenizer.distinct(given)
            if (error := screener.probe()) > manifest.budget:
                raise CalibrationError(
                    f"{name} is {error:.1e} (relative) from PyTorch on the bundle's probes, and "
                    f"the bundle allows {manifest.budget:.0e}: nothing is carried over. Calibrate "
                    "it by itself."
                )
            kept.append([])
            for each in chosen:
                statistic = find_statistic(each.setting.detector)
                stage = Stage.of(screener, statistic, each.setting.steps, each.setting.noises)
                kept[-1].append(_scores(stage, texts, each))
                progress(sum(map(len, kept)), 2 * len(chosen))
    found = []
    for calibration, here, there in zip(chosen, *kept, strict=True):
        error = float(np.abs(here - there).max())
        carried, near = Carried(first, len(texts), error), calibration.nearest
        setting = replace(calibration.setting, backend=second)
        if not carried.fits(replace(calibration, setting=setting)):
            tell(
                f"{calibration.setting} is not carried over: {second} differs by up to "
                f"{error:.1e} on {counted(len(texts), 'prompt')}, and a calibrated score lies "
                f"{near:.1e} from the threshold, which is less than {SAFETY} times that. "
                f"Calibrate {second} by itself."
            )
            continue
        found.append(replace(calibration, setting=setting, carried=carried))
    if not found:
        raise CalibrationError(
            f"No calibration of {first} can be carried over to {second}. Calibrate it by "
            f"itself: `{calibrate_command(path, f'--backend {second}')}`."
        )
    return found


def _chosen(
    file: CalibrationFile, source: str, target: str, tell: Callable[[str], None]
) -> list[Calibration]:
    """Those that may be carried over."""
    found = []
    for each in file.calibrations:
        if each.setting.backend != source:
            continue
        known = file.find(replace(each.setting, backend=target))
        if known is not None and known.carried is None:
            tell(f"{known.setting} was measured itself, and stays as it is.")
        elif each.carried is not None:
            tell(
                f"{each.setting} was itself carried over from {each.carried.backend}: carry it "
                "over from there."
            )
        elif each.gate is not None:
            tell(
                f"{each.setting} is a cascade, which jumps where its first stage clears, so that "
                f"a small difference is no small one. Calibrate {target} by itself."
            )
        else:
            found.append(each)
    if not found:
        raise CalibrationError(
            f"There is nothing of {source} to be carried over to {target}. `mnemoscope calibration "
            "inspect` shows what is calibrated."
        )
    return found


def _scores(stage: Stage, prompts: list[str], calibration: Calibration) -> Scores:
    parts = [
        stage.scores(stage.screener.tokenizer.encode(prompts[i : i + _BATCH]), calibration.fit)
        for i in range(0, len(prompts), _BATCH)
    ]
    return np.asarray(np.concatenate(parts).mean(1), np.float64)

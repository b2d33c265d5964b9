"""Opening a bundle for detectors: on which backend, and with which calibration."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from mnemoscope_runtime import Backend, BackendOptions, Bundle, Screener
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.selection import CANDIDATES, Trial, fastest, try_backends

from ..calibration import CalibrationFile
from ..detectors import Statistic, find_statistic

__all__ = ["CALIBRATION", "open_screener", "own_calibration", "read_calibration"]

CALIBRATION = "calibration.json"


def open_screener(
    path: Path,
    backend: str | Backend,
    options: BackendOptions,
    detectors: Sequence[str | Statistic],
    preferred: Collection[str] = (),
    trust: str | Path | None = None,
) -> Screener:
    """A bundle on a backend, with the engines that these detectors need for one step.

    "auto" tries the screening graph, whatever the detectors, on every backend, and takes the
    fastest within the bundle's budget; one of `preferred` if any of those will do.
    """
    statistics = [find_statistic(name) for name in detectors]
    if backend == "auto":
        backend = _fastest(path, options, preferred, trust)
        options = options.taken_by(backend)
    screener = Screener.open(path, backend=backend, graphs=(), trust=trust, **asdict(options))
    try:
        for statistic in statistics:
            screener.prepare(*statistic.graphs(screener))
    except BaseException:
        screener.close()
        raise
    return screener


def _fastest(
    path: Path, options: BackendOptions, preferred: Collection[str], trust: str | Path | None
) -> str:
    options.check(*CANDIDATES)
    budget = Bundle.open(path, trust=trust).manifest.budget
    trials: list[Trial] = []
    for names in (
        [name for name in CANDIDATES if name in preferred],
        [name for name in CANDIDATES if name not in preferred],
    ):
        trials += try_backends(path, names, options, trust)
        if any(trial.error is not None and trial.error <= budget for trial in trials):
            break
    return fastest(trials, budget).backend


def own_calibration(bundle: Path) -> Path | None:
    """A bundle's own calibration file, if it has one; a link that leads nowhere is one, too."""
    path = bundle / CALIBRATION
    return path if os.path.lexists(path) else None


def read_calibration(
    calibration: str | Path | CalibrationFile | None, bundle: Path, trust: str | Path | None
) -> CalibrationFile | None:
    """What a user says a calibration is: a file, what was read from one, or the bundle's own.

    Raises:
        InputError: it is something else.
        CalibrationError, SignatureError, BackendUnavailable: as `CalibrationFile.read`.
    """
    if isinstance(calibration, CalibrationFile):
        return calibration
    check_options("a path or None", calibration=calibration)
    file = Path(calibration) if calibration is not None else own_calibration(bundle)
    return None if file is None else CalibrationFile.read(file, trust=trust)

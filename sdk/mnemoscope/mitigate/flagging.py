"""What screening says of a prompt before it is drawn."""

from __future__ import annotations

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..calibration.remedies import calibrates
from ..detector import Detector
from ..screening.detection import Detection

__all__ = ["is_flagged", "screen"]


def screen(detector: Detector, prompt: str) -> Detection:
    """Screen with as many steps and noises as the detector was calibrated with.

    Raises:
        CalibrationError: it was not, on this backend.
    """
    file = detector.calibration
    settings = [
        each.setting
        for each in (() if file is None else file.calibrations)
        if (each.setting.backend, each.setting.detector)
        == (detector.screener.backend.name, detector.statistic.name)
    ]
    if not settings:
        raise CalibrationError(
            "`auto` decides by p-values, and the bundle has no calibration for "
            f"{detector.screener.backend.name}. "
            f"{calibrates(detector.screener.bundle.path)} Or name a strategy."
        )
    best = max(settings, key=lambda each: (each.steps, each.noises))
    [found] = detector.screen([prompt], steps=best.steps, noises=best.noises)
    return found


def is_flagged(detection: Detection, level: float) -> bool:
    """Whether so few benign prompts score as high.

    Raises:
        InputError: the prompt is empty.
    """
    if detection.p_value is None:  # `screen` chose a calibrated setting
        raise InputError("The prompt is empty, so there is nothing to mitigate. Give one.")
    return detection.p_value <= level

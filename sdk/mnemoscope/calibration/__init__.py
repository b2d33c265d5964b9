"""What benign prompts score in one way of measuring, and the thresholds that follow."""

from .calibration import AGAIN, Calibration, Carried, digest, name_of
from .drift import Drift
from .file import CalibrationFile
from .setting import Setting

__all__ = [
    "AGAIN",
    "Calibration",
    "CalibrationFile",
    "Carried",
    "Drift",
    "Setting",
    "digest",
    "name_of",
]

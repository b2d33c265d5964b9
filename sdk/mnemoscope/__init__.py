"""Tells, before an image is drawn, whether a diffusion model is about to recite a training image.

from mnemoscope import Detector

with Detector.load() as detector:
    for detection in detector.screen(["a prompt", "another prompt"]):
        print(detection.score, detection.memorized)
"""

from mnemoscope_runtime import __version__
from mnemoscope_runtime.errors import (
    BackendError,
    BackendUnavailable,
    BundleError,
    CalibrationError,
    ExportError,
    InputError,
    IntegrityError,
    MnemoscopeError,
    NumericsError,
    ParityError,
    SchemaError,
)

from .calibrating import calibrate
from .calibration import Calibration, CalibrationFile, Carried, Drift, Setting
from .carrying import carry
from .cascade import First, Gate
from .choosing import Candidate, Choice, choose
from .detection import Detection
from .detector import Detector
from .detectors import DETECTORS

__all__ = [
    "DETECTORS",
    "BackendError",
    "BackendUnavailable",
    "BundleError",
    "Calibration",
    "CalibrationError",
    "CalibrationFile",
    "Candidate",
    "Carried",
    "Choice",
    "Detection",
    "Detector",
    "Drift",
    "ExportError",
    "First",
    "Gate",
    "InputError",
    "IntegrityError",
    "MnemoscopeError",
    "NumericsError",
    "ParityError",
    "SchemaError",
    "Setting",
    "__version__",
    "calibrate",
    "carry",
    "choose",
]

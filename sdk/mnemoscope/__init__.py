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
    LoadFailed,
    MnemoscopeError,
    ModelNotReady,
    NotAllowed,
    NumericsError,
    Overloaded,
    ParityError,
    SchemaError,
    ServiceClosed,
    SignatureError,
    UnknownModel,
    Unserved,
)

from .calibration import Calibration, CalibrationFile, Carried, Drift, Setting
from .calibration.carrying import carry
from .calibration.cascade import First, Gate
from .calibration.choosing import Candidate, Choice, choose
from .calibration.making import calibrate
from .detector import Detector
from .detectors import DETECTORS
from .screening.detection import Detection

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
    "LoadFailed",
    "MnemoscopeError",
    "ModelNotReady",
    "NotAllowed",
    "NumericsError",
    "Overloaded",
    "ParityError",
    "SchemaError",
    "ServiceClosed",
    "Setting",
    "SignatureError",
    "UnknownModel",
    "Unserved",
    "__version__",
    "calibrate",
    "carry",
    "choose",
]

"""Magnitudes with the least latency possible; no torch."""

from ._version import __version__
from .backends import BACKENDS, Backend, BackendOptions, Engine, open_backend
from .bundle import Bundle
from .clip_tokenizer import ClipTokenizer
from .embeddings import Embeddings, Prompts
from .errors import (
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
from .manifest import Manifest
from .readers import tokenizer_of
from .reporting import switch_off_reports
from .screener import Part, Prediction, Screener
from .tokenizer import Tokenizer, Tokens

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "BackendOptions",
    "BackendUnavailable",
    "Bundle",
    "BundleError",
    "CalibrationError",
    "ClipTokenizer",
    "Embeddings",
    "Engine",
    "ExportError",
    "InputError",
    "IntegrityError",
    "LoadFailed",
    "Manifest",
    "MnemoscopeError",
    "ModelNotReady",
    "NotAllowed",
    "NumericsError",
    "Overloaded",
    "ParityError",
    "Part",
    "Prediction",
    "Prompts",
    "SchemaError",
    "Screener",
    "ServiceClosed",
    "SignatureError",
    "Tokenizer",
    "Tokens",
    "UnknownModel",
    "Unserved",
    "__version__",
    "open_backend",
    "tokenizer_of",
]

# the one thing that an import does: later it is too late, since diffusers loads what reports
switch_off_reports()

"""Magnitudes with the least latency possible; no torch."""

from ._version import __version__
from .backends import BACKENDS, Backend, BackendOptions, Engine, open_backend
from .bundle import Bundle
from .embeddings import Embeddings, Prompts
from .errors import (
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
from .manifest import Manifest
from .screening import Prediction, Screener, Tile
from .tokenizer import ClipTokenizer, Tokens

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
    "Manifest",
    "MnemoscopeError",
    "NumericsError",
    "ParityError",
    "Prediction",
    "Prompts",
    "SchemaError",
    "Screener",
    "Tile",
    "Tokens",
    "__version__",
    "open_backend",
]

"""Every error Mnemoscope raises on purpose.

    MnemoscopeError
    ├── InputError              a prompt, a file of prompts or an option            exit code 2
    ├── BackendError            the machine, or what runs an engine                 exit code 3
    │   ├── BackendUnavailable  not installed, or cannot do what was asked
    │   └── NumericsError       NaN or infinity where a magnitude should be
    ├── BundleError             a bundle that cannot be used                        exit code 4
    │   ├── SchemaError         written by another version, or not a bundle
    │   └── IntegrityError      files differ from what the manifest promises
    ├── CalibrationError        a threshold that does not belong to this bundle     exit code 4
    └── ExportError             a model that cannot be exported                     exit code 3
        └── ParityError         an engine that does not agree with PyTorch

Each message says what happened, why, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BackendError",
    "BackendUnavailable",
    "BundleError",
    "CalibrationError",
    "ExportError",
    "InputError",
    "IntegrityError",
    "MnemoscopeError",
    "NumericsError",
    "ParityError",
    "SchemaError",
]


class MnemoscopeError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 3


class InputError(MnemoscopeError, ValueError):
    """A prompt, a file of prompts or an option cannot be used."""

    exit_code = 2


class BackendError(MnemoscopeError, RuntimeError):
    """The machine, or what runs an engine, failed."""


class BackendUnavailable(BackendError):
    """The backend that was asked for is not installed or cannot do what was asked."""


class NumericsError(BackendError):
    """A magnitude came out as NaN or infinite: it is not a verdict."""


class BundleError(MnemoscopeError):
    """A bundle cannot be used."""

    exit_code = 4


class SchemaError(BundleError):
    """The directory is no bundle, or was written by another version."""


class IntegrityError(BundleError):
    """The files of a bundle are not the ones its manifest promises."""


class CalibrationError(MnemoscopeError):
    """A calibration does not belong to this bundle, backend or setting."""

    exit_code = 4


class ExportError(MnemoscopeError):
    """A model cannot be exported."""


class ParityError(ExportError):
    """An exported engine does not agree with PyTorch."""

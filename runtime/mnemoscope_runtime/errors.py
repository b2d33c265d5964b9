"""Every error Mnemoscope raises on purpose.

    MnemoscopeError
    ├── InputError              a prompt, a file of prompts or an option            exit code 2
    ├── BackendError            the machine, or what runs a graph                   exit code 3
    │   ├── BackendUnavailable  not installed, or cannot do what was asked
    │   └── NumericsError       NaN or infinity where a magnitude should be
    ├── BundleError             a bundle that cannot be used                        exit code 4
    │   ├── SchemaError         written by another version, or not a bundle
    │   └── IntegrityError      files differ from what the manifest promises
    ├── CalibrationError        a threshold that does not belong to this bundle     exit code 4
    ├── SignatureError          a bundle or calibration that nobody trusted signed  exit code 4
    ├── ExportError             a model that cannot be exported                     exit code 2
    │   └── ParityError         a graph that does not agree with PyTorch            exit code 3
    └── Unserved                a request that was not taken on                     exit code 3
        ├── Overloaded          too many are waiting
        ├── ServiceClosed       nothing is taken on any more
        ├── UnknownModel        no model of that name is served
        ├── ModelNotReady       it is, and cannot answer now
        ├── LoadFailed          it could not be opened, or opened anew
        └── NotAllowed          whoever asks may not

Each message says what happened, why, and what to do next.
"""

from __future__ import annotations

import math
from typing import ClassVar

from .wording import counted

__all__ = [
    "BackendError",
    "BackendUnavailable",
    "BundleError",
    "CalibrationError",
    "ExportError",
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
    "SignatureError",
    "UnknownModel",
    "Unserved",
]


class MnemoscopeError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 3


class InputError(MnemoscopeError, ValueError):
    """A prompt, a file of prompts or an option cannot be used."""

    exit_code = 2


class BackendError(MnemoscopeError, RuntimeError):
    """The machine, or what runs a graph, failed."""


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


class SignatureError(MnemoscopeError):
    """A bundle or a calibration is not signed by the key that is trusted."""

    exit_code = 4


class ExportError(MnemoscopeError):
    """A model cannot be exported, or not to that place."""

    exit_code = 2


class ParityError(ExportError):
    """An exported graph does not agree with PyTorch."""

    exit_code = 3


class Unserved(MnemoscopeError):
    """A request was not taken on: nothing was measured."""


class Overloaded(Unserved):
    """Too many prompts are waiting.

    Attributes:
        retry_after: Seconds after which the queue should be empty, as fast as it goes now.
    """

    def __init__(self, waiting: int, retry_after: float, more: int = 1) -> None:
        super().__init__(
            f"{counted(waiting, 'prompt')} {'is' if waiting == 1 else 'are'} waiting, too many to "
            f"take on {more} more. Come again in {max(1, math.ceil(retry_after))} s, or send "
            "fewer at a time."
        )
        self.retry_after = retry_after


class ServiceClosed(Unserved):
    """The service is shutting down, or was."""

    def __init__(self) -> None:
        super().__init__(
            "This service takes nothing on any more: it is shutting down. Ask another process."
        )


class UnknownModel(Unserved):
    """A service has no model of that name or version."""


class ModelNotReady(Unserved):
    """A model cannot answer: it is being opened, was taken away, or its engine is gone."""


class LoadFailed(Unserved):
    """A model could not be opened for whoever asked for it; one that was open goes on."""


class NotAllowed(Unserved):
    """Whoever asks may not."""

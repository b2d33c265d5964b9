"""What an error is to a client: its status in HTTP and in gRPC, and what is said of a defect."""

from __future__ import annotations

import logging
import math
import traceback

from mnemoscope_runtime.errors import (
    InputError,
    LoadFailed,
    ModelNotReady,
    NotAllowed,
    NumericsError,
    Overloaded,
    ServiceClosed,
    UnknownModel,
)

__all__ = ["FAULT", "STATUSES", "log_fault", "retry_after", "status_of", "told"]

FAULT = "The service failed, and its log says where. Nothing is known of the prompts."
_log = logging.getLogger(__name__)

STATUSES: tuple[tuple[type[BaseException], int, str], ...] = (
    (InputError, 400, "INVALID_ARGUMENT"),
    (NotAllowed, 403, "PERMISSION_DENIED"),
    (UnknownModel, 404, "NOT_FOUND"),
    (LoadFailed, 409, "FAILED_PRECONDITION"),
    (Overloaded, 429, "RESOURCE_EXHAUSTED"),
    (ModelNotReady, 503, "UNAVAILABLE"),
    (ServiceClosed, 503, "UNAVAILABLE"),
    (TimeoutError, 504, "DEADLINE_EXCEEDED"),
)


def status_of(error: BaseException) -> tuple[int, str]:
    """Of HTTP, and the name of gRPC's; what is no fault of who asks is 500 and INTERNAL."""
    for kind, http, grpc in STATUSES:
        if isinstance(error, kind):
            return http, grpc
    return 500, "INTERNAL"


def told(error: BaseException) -> str:
    """What a client is told of it: of the service's own faults only what is of its prompts."""
    hidden = status_of(error)[0] == 500 and not isinstance(error, NumericsError)
    return FAULT if hidden else str(error)


def retry_after(error: Overloaded) -> str:
    """Whole seconds, as the header Retry-After has them."""
    return str(max(1, math.ceil(error.retry_after)))


def log_fault(error: BaseException) -> None:
    """Log where a defect showed itself: its message may hold a prompt, and is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{each.filename}:{each.lineno} {each.name}" for each in frames[-6:]]
    _log.error("a request failed with %s at %s", type(error).__name__, " > ".join(places))

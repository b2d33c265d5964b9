"""The libraries that build and run engines, TensorRT and TensorRT for RTX: one API, two modules."""

from __future__ import annotations

import importlib
import re
from collections import deque
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from ..backends import missing
from ..errors import BackendUnavailable, InputError

__all__ = ["MODULES", "PRODUCTS", "cuda_major", "import_library", "make_logger", "version_of"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
PRODUCTS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_WHEELS = {"tensorrt": "tensorrt_cu{}", "tensorrt-rtx": "tensorrt_rtx_cu{}_bindings"}
_CUDA = (13, 12)
_OLDEST, _BELOW = (10, 3), (12, 0)  # of TensorRT; 10.3 is what JetPack 6.2 has


def import_library(backend: str) -> ModuleType:
    """The Python module of a library.

    Raises:
        InputError: no such backend.
        BackendUnavailable: it is not installed, does not load, or is of another version.
    """
    if backend not in MODULES:
        raise InputError(f"{backend!r} builds no engines. Choose one of: {', '.join(MODULES)}.")
    try:
        trt = importlib.import_module(MODULES[backend])
    except Exception as error:  # OSError, RuntimeError, ...: libraries that are not there or unfit
        raise missing(backend, error) from None
    if not hasattr(trt, "Runtime"):
        raise missing(backend, ImportError("the package is there but empty"))
    if backend == "tensorrt" and not _OLDEST <= version_of(trt.__version__) < _BELOW:
        raise BackendUnavailable(
            f"TensorRT {trt.__version__} is not supported. Install one from 10.3 to 11."
        )
    return trt


def version_of(text: str) -> tuple[int, ...]:
    """A version's leading numbers: (10, 3, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def cuda_major(backend: str) -> int | None:
    """The CUDA that a library was built for, by the name of its wheel: 13 of tensorrt_cu13.

    None where it was not installed from one, as on Jetson.
    """
    for major in _CUDA:
        with suppress(PackageNotFoundError):
            version(_WHEELS[backend].format(major))
            return major
    return None


def make_logger(trt: ModuleType) -> Any:
    """A logger that says nothing itself and keeps errors for ours to quote."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=50)

        @property
        def reason(self) -> str:
            """The last error, or the last that says that memory ran out."""
            memory = [error for error in self._errors if _is_memory(error)]
            return ["no reason given", *self._errors, *memory][-1]

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._errors.append(message)

    return Logger()


def _is_memory(text: str) -> bool:
    """Whether an error says that memory ran out."""
    return bool(re.search(r"out.?of.?memory|insufficient memory|alloc", text, re.IGNORECASE))

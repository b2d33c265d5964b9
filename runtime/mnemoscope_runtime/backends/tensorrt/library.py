"""The libraries that build and run plans, TensorRT and TensorRT for RTX: one API, two modules."""

from __future__ import annotations

import importlib
import re
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from ...errors import BackendError, BackendUnavailable, InputError
from ..nvidia.gpu import Gpu
from ..table import missing

__all__ = [
    "MODULES",
    "PRODUCTS",
    "Library",
    "capabilities",
    "cuda_major",
    "import_library",
    "needs_target",
    "releasing",
    "version_of",
]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
PRODUCTS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_WHEELS = {"tensorrt": "tensorrt_cu{}", "tensorrt-rtx": "tensorrt_rtx_cu{}_bindings"}
_CUDA = (13, 12)
_OLDEST, _BELOW = (10, 3), (12, 0)  # of TensorRT; 10.3 is what JetPack 6.2 has
_TURING = "SM75"
Given = ParamSpec("Given")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Library:
    """One of the libraries in use, with what it says of its failures.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        trt: Its module.
        logger: What it reports to.
    """

    backend: str
    trt: ModuleType
    logger: Any

    @classmethod
    def of(cls, backend: str, trt: ModuleType) -> Library:
        """With a logger of its own."""
        return cls(backend, trt, make_logger(trt))

    @property
    def name(self) -> str:
        """ "TensorRT for RTX 1.7.1" """
        return f"{PRODUCTS[self.backend]} {self.trt.__version__}"

    def make(self, kind: str) -> Any:
        """A "Builder" or a "Runtime".

        Raises:
            BackendUnavailable: the library cannot start.
        """
        try:
            return getattr(self.trt, kind)(self.logger)
        except (TypeError, RuntimeError) as error:  # pybind has a TypeError for what is null
            why = self.logger.reason_or(str(error))
            raise BackendUnavailable(
                f"{self.name} cannot start its {kind}: {why}. `mnemoscope doctor` shows the driver "
                "and the CUDA that it supports, and which libraries load."
            ) from None

    def got(self, value: Value | None, what: str, remedy: str = "") -> Value:
        """`value`, unless it is what the library returns when it fails: None, False or -1.

        Raises:
            BackendError: it is; says what cannot be done, the library's reason, and the remedy.
        """
        if value is None or value is False or (isinstance(value, int) and value < 0):
            raise self.failed(what, remedy)
        return value

    def failed(self, what: str, remedy: str = "") -> BackendError:
        """The error for something that the library refused."""
        text = f"{self.name} cannot {what}: {self.logger.reason}."
        return BackendError(f"{text} {remedy}".rstrip())

    def check_gpu(self, gpu: Gpu) -> None:
        """Make sure that TensorRT for RTX has code for a GPU; TensorRT lists none, and asks itself.

        Raises:
            BackendUnavailable: it has not.
        """
        known = capabilities(self.trt) if self.backend == "tensorrt-rtx" else ()
        if known and gpu.sm not in known:
            raise BackendUnavailable(
                f"{self.name} has code for compute capabilities {', '.join(known)}, and none for "
                f"{gpu}. Use tensorrt or onnxruntime-cuda on this GPU."
            )


def releasing(work: Callable[Given, Value]) -> Callable[Given, Value]:
    """What uses a library's objects, but keeps none of them alive by an error that it raises.

    An error's traceback would keep them until garbage is collected, which may be while the library
    reports to its logger. It then holds a lock that the end of any of its objects waits for: the
    process would hang.
    """

    @wraps(work)
    def released(*args: Given.args, **named: Given.kwargs) -> Value:
        try:
            return work(*args, **named)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise

    return released


def capabilities(trt: ModuleType) -> tuple[str, ...]:
    """The compute capabilities that a library builds for, as it lists them; none if it does not."""
    known = getattr(trt, "ComputeCapability", None)
    return tuple(n for n in known.__members__ if n.startswith("SM")) if known else ()


def needs_target(backend: str, sm: str) -> bool:
    """Whether a plan for this compute capability must be built for it by name.

    TensorRT for RTX builds for Ampere and later unless it is told a target.
    """
    return backend == "tensorrt-rtx" and sm == _TURING


def import_library(backend: str) -> ModuleType:
    """The Python module of a library.

    Raises:
        InputError: no such backend.
        BackendUnavailable: it is not installed, does not load, or is of another version.
    """
    if backend not in MODULES:
        raise InputError(f"{backend!r} builds no plans. Choose one of: {', '.join(MODULES)}.")
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
            return self.reason_or("no reason given")

        def reason_or(self, otherwise: str) -> str:
            """The same, or `otherwise` where there was no error."""
            memory = [error for error in self._errors if _is_memory(error)]
            return [otherwise, *self._errors, *memory][-1].rstrip(".")

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._errors.append(message)

    return Logger()


def _is_memory(text: str) -> bool:
    """Whether an error says that memory ran out."""
    return bool(re.search(r"out.?of.?memory|insufficient memory|alloc", text, re.IGNORECASE))

"""What runs an engine. A backend is imported only when it is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailable, InputError
from ..manifest import Precision
from ..options import check_options

__all__ = ["BACKENDS", "CPU", "Backend", "Engine", "Precision", "open_backend"]

Arrays = Mapping[str, NDArray[Any]]

_MODULES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "onnxruntime-cuda": "onnxruntime_gpu",
    "onnxruntime-tensorrt": "onnxruntime_gpu",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
}
BACKENDS = tuple(_MODULES)
CPU = ("onnxruntime", "openvino")


class Engine(Protocol):
    """A graph that is ready to run. Engines may be called from several threads at once."""

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """Run the graph and return the named outputs."""
        ...


class Backend(Protocol):
    """Loads the graphs of a bundle.

    Attributes:
        name: What `open_backend` calls it, with the precision if that is not the graph's own.

    A backend that cuts calls to sizes of its own says so with an attribute `cuts_calls = True`: it
    is then handed more at once than would suit a CPU.
    """

    name: str

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Make the engine of one graph: "screen", "step" or "text_encoder"."""
        ...

    def close(self) -> None:
        """Let go of every engine."""
        ...


def open_backend(name: str, *, threads: int | None = None, device: int | None = None) -> Backend:
    """The backend of that name: this one or none, there is no fallback.

    Args:
        name: One of `BACKENDS`, and a precision if it is not to be the graph's own:
            "openvino:bfloat16".
        threads: CPU threads an engine may use; None leaves it to the backend.
        device: Which GPU, counted from 0 as CUDA does; None is the first.

    Raises:
        InputError: no such backend or precision, not a number of threads, or not a device.
        BackendUnavailable: it is not installed here, or does not work; says how to mend it.
    """
    check_options("text", backend=name)
    name, colon, precision = name.partition(":")
    if name not in BACKENDS:
        raise InputError(
            f"There is no backend {name!r}. Choose one of: {', '.join(BACKENDS)}, "
            "openvino:bfloat16, or auto (without a precision)."
        )
    if colon and precision not in get_args(Precision):
        choice = ", ".join(f"{name}:{known}" for known in get_args(Precision))
        raise InputError(f"There is no precision {precision!r}. Choose one of: {choice}.")
    if colon and name != "openvino":
        raise InputError(
            f"{name} computes in the precision of the graph, so {name}:{precision} is not to be "
            "had. Leave the precision out, or export the model in that precision."
        )
    check_options("a whole number or None", threads=threads, device=device)
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads cannot run anything. Give 1 or more.")
    if device is not None and (device < 0 or name in CPU):
        raise InputError(
            f"{name} cannot run on GPU {device}. "
            + ("It runs on the CPU: leave the device out." if name in CPU else "Count from 0.")
        )
    module = importlib.import_module(f".{_MODULES[name]}", __name__)
    opener: Callable[..., Backend] = module.open_backend
    return opener(name, threads=threads, precision=precision or None, device=device or 0)


def missing(name: str, error: Exception, extra: str | None = None) -> BackendUnavailable:
    """The error for a backend whose package cannot be imported."""
    return BackendUnavailable(
        f"The backend {name!r} cannot be used: {error}. Install it with "
        f"`pip install 'mnemoscope[{extra or name}]'`; `mnemoscope doctor` shows what works."
    )

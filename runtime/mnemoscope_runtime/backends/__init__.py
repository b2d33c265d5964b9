"""What runs an engine. A backend is imported only when it is chosen."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailable, InputError
from ..manifest import Precision
from ..options import check_options

__all__ = [
    "BACKENDS",
    "CPU",
    "Backend",
    "BackendOptions",
    "Engine",
    "Precision",
    "open_backend",
]

Arrays = Mapping[str, NDArray[Any]]

_FEW = 4  # threads a core
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
_TAKES = {  # besides a precision
    "onnxruntime": ("threads",),
    "openvino": ("threads",),
    "onnxruntime-cuda": ("threads", "device"),
    "onnxruntime-tensorrt": ("threads", "device"),
    "tensorrt": ("device", "engines"),
    "tensorrt-rtx": ("device", "engines"),
}


@dataclass(frozen=True)
class BackendOptions:
    """What a backend may be told; None leaves it to the backend.

    Attributes:
        threads: CPU threads an engine may use.
        device: Which GPU, counted from 0 as CUDA does; the first by default.
        engines: Folder of engines that `mnemoscope build` made; by default BUNDLE/engines.
    """

    threads: int | None = None
    device: int | None = None
    engines: str | Path | None = None

    @property
    def given(self) -> dict[str, int | str | Path]:
        """Those that are not None, by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def taken_by(self, name: str) -> BackendOptions:
        """Those that a backend takes, of options that are meant for several."""
        takes = _TAKES.get(name.partition(":")[0], ())
        return replace(self, **dict.fromkeys(set(self.given) - set(takes)))

    def check(self, *names: str) -> None:
        """Refuse what cannot be used, or what none of these backends takes.

        Raises:
            InputError: says which option, and which backends take it.
        """
        check_options("a whole number or None", threads=self.threads, device=self.device)
        check_options("a path or None", engines=self.engines)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"{self.threads} threads cannot run anything. Give 1 or more.")
        cores = os.cpu_count() or 1
        if self.threads is not None and self.threads > (most := max(16, _FEW * cores)):
            raise InputError(
                f"{self.threads:,} threads on {cores} core(s) would be busy with each other. Give "
                f"{most} or fewer, or leave it out."
            )
        if self.device is not None and self.device < 0:
            raise InputError(f"There is no GPU {self.device}. Count from 0.")
        for option, value in self.given.items():
            takers = [name for name, takes in _TAKES.items() if option in takes]
            if not {name.partition(":")[0] for name in names} & set(takers):
                verb = "takes" if len(names) == 1 else "take"
                raise InputError(
                    f"{', '.join(names)} {verb} no {option} (--{option} {value}). Leave it out, or "
                    f"choose a backend that does: {', '.join(takers)}."
                )


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


def open_backend(
    name: str,
    *,
    threads: int | None = None,
    device: int | None = None,
    engines: str | Path | None = None,
) -> Backend:
    """The backend of that name: this one or none, there is no fallback.

    Args:
        name: One of `BACKENDS`, and a precision if it is not to be the graph's own:
            "openvino:bfloat16".
        threads: CPU threads an engine may use; None leaves it to the backend.
        device: Which GPU, counted from 0 as CUDA does; None is the first.
        engines: Folder of engines that `mnemoscope build` made; None is BUNDLE/engines.

    Raises:
        InputError: no such backend or precision, or an option that it does not take.
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
    options = BackendOptions(threads, device, engines)
    options.check(name)
    module = importlib.import_module(f".{_MODULES[name]}", __name__)
    opener: Callable[..., Backend] = module.open_backend
    more = {} if engines is None else {"engines": Path(engines)}
    return opener(name, threads=threads, precision=precision or None, device=device or 0, **more)


def missing(name: str, error: Exception, extra: str | None = None) -> BackendUnavailable:
    """The error for a backend whose package cannot be imported."""
    return BackendUnavailable(
        f"The backend {name!r} cannot be used: {error}. Install it with "
        f"`pip install 'mnemoscope[{extra or name}]'`; `mnemoscope doctor` shows what works."
    )

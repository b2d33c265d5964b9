"""The backends, one line each. Whatever names them reads this table, and imports what it chose."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import BackendUnavailable
from ..manifest import Precision
from ..wording import pip_install

__all__ = ["BACKENDS", "Option", "Spec", "missing"]

Option = Literal["threads", "device", "engines", "batch", "contexts", "precision"]


@dataclass(frozen=True)
class Spec:
    """A backend that nobody has imported yet.

    Attributes:
        where: Its class, as "module:Class" in this package.
        extra: The extra that installs what it runs on.
        takes: What its constructor may be told: fields of `BackendOptions`, and a precision other
            than the graph's, which stands in the name ("openvino:bfloat16").
        packages: Distributions that it runs on.
        named: Whether the class runs several backends, and is told which.
        lower: Precisions that `auto` tries besides the graph's own.
    """

    where: str
    extra: str
    takes: frozenset[Option]
    packages: tuple[str, ...]
    named: bool = False
    lower: tuple[Precision, ...] = ()

    def load(self) -> Any:
        """The class, from its module."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)


_ORT_GPU: frozenset[Option] = frozenset({"threads", "device", "batch"})
_TENSORRT: frozenset[Option] = frozenset({"device", "engines", "contexts"})

BACKENDS: Mapping[str, Spec] = {
    "onnxruntime": Spec(
        "onnxruntime:OnnxRuntime",
        extra="onnxruntime",
        takes=frozenset({"threads"}),
        packages=("onnxruntime",),
    ),
    "openvino": Spec(
        "openvino:OpenVino",
        extra="openvino",
        takes=frozenset({"threads", "precision"}),
        packages=("openvino",),
        lower=("bfloat16",),
    ),
    "onnxruntime-cuda": Spec(
        "onnxruntime_gpu.backend:OnnxRuntimeGpu",
        extra="onnxruntime-gpu",
        takes=_ORT_GPU,
        packages=("onnxruntime-gpu",),
        named=True,
    ),
    "onnxruntime-tensorrt": Spec(
        "onnxruntime_gpu.backend:OnnxRuntimeGpu",
        extra="onnxruntime-gpu",
        takes=_ORT_GPU | {"engines"},
        packages=("onnxruntime-gpu",),
        named=True,
    ),
    "tensorrt": Spec(
        "tensorrt.backend:TensorRt",
        extra="tensorrt",
        takes=_TENSORRT,
        packages=("tensorrt",),
        named=True,
    ),
    "tensorrt-rtx": Spec(
        "tensorrt.backend:TensorRt",
        extra="tensorrt-rtx",
        takes=_TENSORRT,
        packages=("tensorrt_rtx_cu13_libs",),
        named=True,
    ),
}
"""What each backend is: its class, its extra, what it runs on, which options it takes."""


def missing(name: str, error: Exception) -> BackendUnavailable:
    """The error for a backend whose packages cannot be imported."""
    return BackendUnavailable(
        f"The backend {name!r} cannot be used: {error}. Install it with "
        f"{pip_install(BACKENDS[name].extra)}; `mnemoscope doctor` shows what works."
    )

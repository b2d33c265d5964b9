"""`TorchBackend` on the device: eager, compiled, and replayed as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from mnemoscope import Detector
from mnemoscope_export import TorchBackend

from . import screening
from .bundles import make_model, sketched
from .device import Device
from .setting import Setting

__all__ = ["Way", "measure"]

Way = Literal["eager", "compiled", "CUDA graphs"]


def measure(setting: Setting, *, way: Way) -> Iterator[dict[str, Any]]:
    """Latency, throughput and memory.

    Args:
        setting: Of the run.
        way: Without CUDA graphs there is no throughput: that size takes long to compile.
    """
    device = Device(setting)
    model = make_model(setting, device)
    path = sketched(setting, model, device)
    backend = TorchBackend(
        model,
        precision=setting.precision,
        device=device.name,
        compiler=None if way == "eager" else setting.compiler,
        cuda_graphs=way == "CUDA graphs",
        batches=(1, 32),
    )
    del model  # in float32
    with Detector.load(path, backend=backend, uncalibrated="score") as detector:
        yield from screening.one_by_one(detector, setting, backend.model)
        if way != "compiled":
            yield from screening.many(detector, setting)
    yield device.figures()

"""Backends that run what was exported: the embedded bundle, and the full size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before ONNX Runtime: it loads the CUDA and cuDNN that are to be used

from mnemoscope import Detector, embedded
from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle, open_backend
from mnemoscope_runtime.backends import BackendOptions
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, build_plan
from mnemoscope_runtime.manifest import Precision

from . import screening
from .bundles import PROMPT, exported, make_model
from .device import Device
from .setting import Setting

__all__ = ["full_size", "two_threads"]

_MANY = 8  # prompts that an engine takes at once where many come
_PROFILES = tuple(map(Profile.parse, ("1", str(_MANY))))
_HOPPER = "SM90"


def two_threads(setting: Setting, *, backend: str) -> Iterator[dict[str, Any]]:
    """The shipped bundle from two threads: its error on the probes, and whether both agree.

    Raises:
        BackendError: they do not.
    """
    _check(backend, setting)
    prompts = [f"{PROMPT}, {index}" for index in range(8)]
    with _open(backend, embedded.BUNDLE, setting) as detector, ThreadPoolExecutor(2) as pool:
        yield {"probe_error": detector.screener.probe()}
        first = detector.screener.first_step(prompts, noises=1)
        start = time.perf_counter()
        calls = [pool.submit(detector.screener.first_step, prompts, noises=1) for _ in range(20)]
        found = [call.result() for call in calls]
        seconds = time.perf_counter() - start
    if not all(np.allclose(each, first, rtol=1e-4) for each in found):
        raise BackendError(f"{backend} measures the same prompts differently from two threads.")
    yield {"prompts_per_second": len(calls) * len(prompts) / seconds}


def full_size(setting: Setting, *, backend: str) -> Iterator[dict[str, Any]]:
    """Latency and throughput of the setting's model, whose graph is exported here."""
    _check(backend, setting)
    device = Device(setting)
    model = make_model(setting, device)
    # ONNX Runtime's TensorRT provider keeps to the precision of float32 graphs only
    precision: Precision = "float32" if backend == "onnxruntime-tensorrt" else setting.precision
    start = time.perf_counter()
    path = exported(setting, model, device, precision)
    yield {"export_seconds": time.perf_counter() - start}
    low = model.to(getattr(torch, precision), copy=False)
    with ExitStack() as stack:
        start = time.perf_counter()
        detector = stack.enter_context(_open(backend, path, setting))
        yield {"open_seconds": time.perf_counter() - start}
        yield from screening.one_by_one(detector, setting, low)
        if backend.startswith("onnxruntime-"):  # its sessions take calls of one size
            detector = stack.enter_context(_open(backend, path, setting, _MANY))
        yield from screening.many(detector, setting)
    yield device.figures()


def _check(backend: str, setting: Setting) -> None:
    """Refuse at once what cannot run here.

    Raises:
        BackendUnavailable: says why.
    """
    if backend == "tensorrt-rtx" and gpu.find(0).sm == _HOPPER:
        raise BackendUnavailable(
            f"TensorRT for RTX has no code for Hopper: {gpu.find(0)}. Use tensorrt there."
        )
    if not setting.is_rehearsal:
        Device(setting)
    open_backend(backend).close()


def _open(name: str, path: Path, setting: Setting, batch: int = 1) -> Detector:
    """A detector on a backend, its plan built if it is one that takes plans."""
    folder = Path(setting.work) / "engines"
    if name in ("tensorrt", "tensorrt-rtx"):
        options = BuildOptions(profiles=_PROFILES)
        build_plan(Bundle.open(path), "screen", folder, backend=name, options=options)
    told = BackendOptions(batch=batch, engines=folder).taken_by(name).given
    return Detector.load(path, backend=name, uncalibrated="score", **told)

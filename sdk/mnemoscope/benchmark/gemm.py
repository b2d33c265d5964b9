"""How fast this machine multiplies matrices: no engine of that precision does more."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable

import numpy as np

from mnemoscope_runtime.backends.openvino import import_openvino
from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.manifest import Precision
from mnemoscope_runtime.wording import pip_install

__all__ = ["gemm_rate"]

_SIZE = 1536  # large enough that memory does not matter, small enough to take milliseconds
_ROUNDS = 9
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def gemm_rate(precision: Precision, threads: int | None = None) -> float:
    """Floating-point operations per second of a large matrix product on the CPU.

    The faster of OpenVINO's product and, in float32, NumPy's: a BLAS can be half as fast as the
    kernels that engines have. Without OpenVINO, float32 is NumPy's alone.

    Raises:
        BackendUnavailable: threadpoolctl or openvino is not installed.
    """
    if precision != "float32":
        return _rate(_openvino(precision, threads))
    rate = _rate(_numpy(threads))
    try:
        return max(rate, _rate(_openvino(precision, threads)))
    except BackendUnavailable:
        return rate


def _rate(product: Callable[[], object]) -> float:
    product()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return 2 * _SIZE**3 / statistics.median(times)


def _numpy(threads: int | None) -> Callable[[], object]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise BackendUnavailable(
            f"Benchmarks need threadpoolctl: {error}. Install it with {pip_install('bench')}."
        ) from None
    matrix = np.ones((_SIZE, _SIZE), np.float32)

    def product() -> None:
        with threadpool_limits(threads, "blas"):
            matrix @ matrix

    return product


def _openvino(precision: Precision, threads: int | None) -> Callable[[], object]:
    openvino = import_openvino()
    ops = importlib.import_module("openvino.opset13")
    matrix = np.ones((_SIZE, _SIZE), np.float32)
    given = ops.parameter([_SIZE, _SIZE], np.float32)
    model = openvino.Model([ops.matmul(given, ops.constant(matrix), False, False)], [given])
    options = {"INFERENCE_PRECISION_HINT": _TYPES[precision]}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([matrix])

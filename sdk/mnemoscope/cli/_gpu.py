"""What `mnemoscope doctor` says of GPUs: what is here, what is missing, which plans fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import PlanKey, differences, folder_of, keys
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, plan_key
from mnemoscope_runtime.backends.tensorrt.library import PRODUCTS, Library, import_library

__all__ = ["describe_engines", "describe_gpus", "describe_libraries"]

_LIBRARIES = {
    "CUDA runtime": ("libcudart.so.13", "libcudart.so.12"),
    "cuBLAS": ("libcublas.so.13", "libcublas.so.12"),
    "cuDNN": ("libcudnn.so.9",),
    "libnvinfer": ("libnvinfer.so.11", "libnvinfer.so.10"),
}


def describe_gpus() -> Iterator[str]:
    """The driver and its GPUs, or why there are none."""
    try:
        driver = gpu.driver()
    except BackendUnavailable as problem:
        yield f"GPU: {problem}"
        return
    yield f"driver: {driver}, supports CUDA up to {driver.cuda}"
    for index, device in enumerate(driver.gpus):
        yield f"GPU {index}: {device}"
    if not driver.gpus:
        yield "GPU: the driver shows none. CUDA_VISIBLE_DEVICES may hide them."


def describe_libraries(told: Collection[str] = ()) -> Iterator[str]:
    """CUDA, cuDNN and TensorRT: what loads, and where the wheel is there but does not.

    Args:
        told: Problems that were shown already.
    """
    for what, names in _LIBRARIES.items():
        missing = gpu.lacking(names)
        there = [name for name in names if name not in missing]
        yield f"{what}: {there[0]}" if there else f"{what}: not found ({', '.join(names)})"
    for backend, product in PRODUCTS.items():
        try:
            yield f"{product}: {import_library(backend).__version__}"
        except BackendUnavailable as problem:
            known = str(problem) in told
            yield f"{product}: {f'cannot be used, see {backend} above' if known else problem}"
    try:
        yield f"cuda-bindings: {version('cuda-bindings')}"
    except PackageNotFoundError:
        yield "cuda-bindings: not installed; running engines needs it"


def describe_engines(
    bundle: Bundle, folder: str | Path | None = None, index: int = 0
) -> Iterator[str]:
    """Every plan of a bundle: whether it fits, or what differs.

    Args:
        bundle: The bundle.
        folder: Where its plans are, if not in the user's cache.
        index: The GPU that is to run them.
    """
    try:
        place = folder_of(bundle.id, folder)
        found = list(keys(place, bundle.trust))
    except BackendError as problem:
        yield f"plans: {problem}"
        return
    if not found:
        yield f"plans: none in {place}; `mnemoscope build` makes them"
    for path, key in found:
        state = key if isinstance(key, Exception) else _state(bundle, key, index)
        yield f"plan {path.name}: {state}"


def _state(bundle: Bundle, key: PlanKey, index: int) -> str:
    try:
        trt = import_library(key.backend)
        here = plan_key(trt, key.backend, bundle, key.graph, BuildOptions())
    except BackendUnavailable as problem:
        return f"cannot be run: {problem}"
    try:
        device = gpu.find(index)
    except BackendUnavailable:
        device = None
    if device is not None:
        try:
            Library.of(key.backend, trt).check_gpu(device)
        except BackendUnavailable as problem:
            return f"cannot be run: {problem}"
    here = here.to_run(key, device)
    if stale := differences(key, here):
        return f"stale: {'; '.join(stale)}. {here.command} builds it again"
    return "fits" if device else "fits this bundle and library; there is no GPU to run it on"

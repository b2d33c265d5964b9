"""Loading a plan into the GPU, and making contexts that run it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ...errors import BackendError
from .files import PlanWarning
from .library import Library, releasing

__all__ = ["Loaded", "deserialize"]

_MEMORY = (
    "If GPU memory ran out, stop what else runs on the GPU, or build the plan for smaller calls "
    "(`mnemoscope build --profile 1`)."
)
_AGAIN = (
    "Build it again with this version and for this GPU (`mnemoscope build --backend tensorrt-rtx`)."
)
_REMEDIES = {  # of what TensorRT for RTX finds in a plan's header
    "OLD_CUDA_DRIVER": "Install a newer driver; `mnemoscope doctor` shows this one.",
    "OLD_CUDA_RUNTIME": "Install a newer CUDA runtime.",
    "INSUFFICIENT_GPU_MEMORY": _MEMORY,
    "CUDA_ERROR": "The driver or CUDA's runtime does not work: see `mnemoscope doctor`.",
}


@dataclass(frozen=True)
class Loaded:
    """A plan in the GPU's memory: what the library calls an engine, and shares between contexts.

    Attributes:
        library: What runs it.
        engine: `ICudaEngine`.
        config: What all contexts of TensorRT for RTX share; None with TensorRT.
        cache: Likewise, their compiled kernels; it must live as long as they do.
    """

    library: Library
    engine: Any
    config: Any | None
    cache: Any | None

    def context(self) -> Any:
        """A new execution context.

        Raises:
            BackendError: the library refuses it.
        """
        if self.config is not None:
            made = self.engine.create_execution_context(self.config)
        else:
            strategy = self.library.trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
            made = self.engine.create_execution_context(strategy)
        return self.library.got(made, "make an execution context", _MEMORY)

    def failed(self, what: str) -> BackendError:
        """The error for something that the library refused."""
        return self.library.failed(what, _MEMORY)


@releasing
def deserialize(trt: ModuleType, backend: str, plan: bytes, host_code: bool) -> Loaded:
    """Load a plan whose key fits.

    Args:
        trt: The library's module.
        backend: "tensorrt" or "tensorrt-rtx".
        plan: Its verified bytes.
        host_code: Whether it is version-compatible: such a plan brings CPU code of its own.

    Raises:
        BackendUnavailable: the library cannot start.
        BackendError: the library refuses the plan.
    """
    library = Library.of(backend, trt)
    runtime = library.make("Runtime")
    if hasattr(runtime, "get_engine_validity"):  # TensorRT for RTX
        _check_header(library, runtime, plan)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = library.got(runtime.deserialize_cuda_engine(plan), "load the plan", _MEMORY)
    is_rtx = hasattr(engine, "create_runtime_config")
    return Loaded(library, engine, *(_configure(library, engine) if is_rtx else (None, None)))


def _configure(library: Library, engine: Any) -> tuple[Any, Any]:
    """The configuration and the cache that all contexts share.

    TensorRT for RTX compiles kernels on the device. All contexts take them from one cache, and wait
    for those of a shape instead of running others meanwhile, which would round differently; of the
    memory of all profiles, each takes what its own needs; and the library makes CUDA graphs itself.
    """
    trt = library.trt
    config = library.got(engine.create_runtime_config(), "configure the plan")
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    config.dynamic_shapes_kernel_specialization_strategy = (
        trt.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    config.set_execution_context_allocation_strategy(
        trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    )
    what = "make a cache of compiled kernels"
    cache = library.got(config.create_runtime_cache(), what)
    library.got(config.set_runtime_cache(cache), what)
    return config, cache


def _check_header(library: Library, runtime: Any, plan: bytes) -> None:
    """Whether TensorRT for RTX would run a plan here, by its header.

    Raises:
        BackendError: it would not.
    """
    trt = library.trt
    validity, flags = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity == trt.EngineValidity.VALID:
        return
    found = [
        name
        for name, flag in trt.EngineInvalidityDiagnostics.__members__.items()
        if int(flags) & int(flag)
    ]
    said = library.logger.reason_or("")
    reasons = [*(name.lower().replace("_", " ") for name in found), *filter(None, [said])]
    why = ", ".join(reasons) or "it does not say why"
    if validity == trt.EngineValidity.INVALID:
        if not found and "cuda" in said.lower():  # as where there is no driver: no flag is set
            found = ["CUDA_ERROR"]
        remedies = dict.fromkeys(_REMEDIES.get(name, _AGAIN) for name in found or ["?"])
        raise BackendError(f"{library.name} cannot run this plan here: {why}. {' '.join(remedies)}")
    warnings.warn(f"The plan runs here, but not at its best: {why}.", PlanWarning, stacklevel=3)

"""Building engines for TensorRT for RTX from the graphs of a bundle.

It builds ahead of time without a GPU, for every compute capability it knows, and finishes on the
device. Precision is in the graph (networks are strongly typed). The graph and its weights come from
the bytes that the bundle verified.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends import missing
from ..bundle import Bundle
from ..errors import BackendError, InputError, IntegrityError
from .files import EngineKey, read_engine, write_engine

__all__ = ["BuildOptions", "build_engine"]

_MODULES = {"tensorrt-rtx": "tensorrt_rtx_bindings"}
Progress = Callable[[str, int, int], None]  # phase, steps done, steps in all


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        batch: Largest number of prompts in one call.
        workspace: Scratch memory that tactics may use, in bytes; None leaves it to TensorRT.
        level: Optimisation level, 0 (builds fast) to 5 (runs fast); None leaves it to TensorRT.
        targets: Compute capabilities that TensorRT for RTX builds for ("SM86"); none: its default,
            which runs on all of them.
    """

    batch: int = 4
    workspace: int | None = None
    level: int | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 256:
            raise InputError(f"An engine takes 1 to 256 prompts at once, not {self.batch}.")
        if self.workspace is not None and self.workspace < 2**20:
            raise InputError(f"A workspace of {self.workspace} bytes is too small. Give 1 MiB up.")
        if self.level is not None and not 0 <= self.level <= 5:
            raise InputError(f"Optimisation levels run from 0 to 5, not {self.level}.")

    @property
    def flags(self) -> tuple[str, ...]:
        """What else the engine's key says."""
        named = {"workspace": self.workspace, "level": self.level}
        return tuple(f"{name}={value}" for name, value in named.items() if value is not None)


def build_engine(
    bundle: Bundle,
    graph: str,
    folder: Path,
    *,
    backend: str = "tensorrt-rtx",
    options: BuildOptions | None = None,
    progress: Progress = lambda *_: None,
) -> Path:
    """Build an engine and write it, with its sidecar, to `folder`, unless it is there already.

    Returns:
        The engine's file.

    Raises:
        InputError: no such backend.
        BackendUnavailable: its package is not installed, or onnx is not.
        BackendError: the graph cannot be parsed or built.
    """
    options = options or BuildOptions()
    trt = _module(backend)
    key = _key(trt, bundle, graph, backend, options)
    with _lock(folder, key, backend):
        try:
            read_engine(folder, key)
        except (BackendError, IntegrityError):
            write_engine(folder, key, _plan(trt, bundle, graph, backend, options, progress))
    return folder / key.name


def _plan(
    trt: ModuleType,
    bundle: Bundle,
    graph: str,
    backend: str,
    options: BuildOptions,
    progress: Progress,
) -> bytes:
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    weights = _parse(parser, bundle, graph, backend)
    config = builder.create_builder_config()
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.level is not None:
        config.builder_optimization_level = options.level
    _aim(trt, config, options.targets, backend)
    config.progress_monitor = monitor = _monitor(trt, progress)
    config.add_optimization_profile(_profile(builder, network, bundle, options.batch))
    plan = builder.build_serialized_network(network, config)
    del weights, monitor  # they had to outlive the build
    if plan is None:
        raise BackendError(
            f"{backend} {trt.__version__} cannot build {graph}: {logger.last}. If memory ran out, "
            "give a smaller --batch or a --workspace limit."
        )
    return bytes(plan)


def _key(
    trt: ModuleType, bundle: Bundle, graph: str, backend: str, options: BuildOptions
) -> EngineKey:
    files = bundle.manifest.files
    return EngineKey(
        backend=backend,
        version=trt.__version__,
        bundle=bundle.id,
        graph=graph,
        graph_sha256=files[bundle.manifest.graphs[graph]].sha256,
        weights_sha256=tuple(files[name].sha256 for name in bundle.data_files()),
        precision=bundle.manifest.precision,
        batch=options.batch,
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        gpu=" ".join(options.targets) or "all that the library knows",
        flags=options.flags,
    )


@contextmanager
def _lock(folder: Path, key: EngineKey, backend: str) -> Iterator[None]:
    """Only one process builds an engine; the others wait, and find it built."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise missing(backend, error) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{key.name}.lock")
        lock.acquire()
    except OSError as error:
        raise BackendError(
            f"{folder} cannot be written: {error}. Choose another folder with --engines."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _module(backend: str) -> ModuleType:
    if backend not in _MODULES:
        raise InputError(f"{backend!r} builds no engines. Choose one of: {', '.join(_MODULES)}.")
    try:
        return importlib.import_module(_MODULES[backend])
    except (ImportError, OSError) as error:  # OSError: a library it needs is missing
        raise missing(backend, error) from None


def _parse(parser: Any, bundle: Bundle, graph: str, backend: str) -> Mapping[str, bytes]:
    """Feed the parser the verified graph and weights; the weights must outlive it."""
    try:
        import onnx
    except ImportError as error:
        raise missing(backend, error) from None
    content = bundle.read(bundle.manifest.graphs[graph])
    model = onnx.load_model_from_string(content)
    weights = {}
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            data, start = bundle.read(place["location"]), int(place.get("offset", 0))
            weights[tensor.name] = data[start : start + int(place["length"])]
    parsed = parser.load_model_proto(content) and all(
        parser.load_initializer(name, _address(data), len(data)) for name, data in weights.items()
    )
    if not (parsed and parser.parse_model_proto()):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BackendError(f"{backend} cannot parse {graph}: {reasons or 'no reason given'}.")
    return weights


def _address(data: bytes) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def _profile(builder: Any, network: Any, bundle: Bundle, batch: int) -> Any:
    """One to `batch` prompts, one to all noises of the bank."""
    most = {"noise_index": bundle.manifest.noise_bank.shape[0]}
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        given = network.get_input(index)
        shape = tuple(given.shape)
        if -1 in shape:
            largest = most.get(given.name, batch)
            low, high = (
                tuple(size if axis == -1 else axis for axis in shape) for size in (1, largest)
            )
            profile.set_shape(given.name, low, low, high)
    return profile


def _aim(trt: ModuleType, config: Any, targets: tuple[str, ...], backend: str) -> None:
    """Have the engine built for these compute capabilities."""
    if not targets:
        return
    known = trt.ComputeCapability.__members__
    if unknown := [name for name in targets if name not in known]:
        raise InputError(
            f"{backend} has no target {', '.join(unknown)}. "
            f"Choose from: {', '.join(name for name in known if name.startswith('SM'))}."
        )
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        config.set_compute_capability(known[name], index)


def _logger(trt: ModuleType) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        """Keeps the last error, for ours to quote; says nothing itself."""

        def __init__(self) -> None:
            super().__init__()
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = message

    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        """Passes the builder's phases on."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:  # noqa: ARG002
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, step + 1, self._steps.get(name, step + 1))
            return True

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

    return Monitor()

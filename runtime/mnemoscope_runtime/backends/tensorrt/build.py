"""Building plans with TensorRT or TensorRT for RTX from the graphs of a bundle.

TensorRT builds on the GPU that will run the plan. TensorRT for RTX builds without a GPU, for
every compute capability it knows, and finishes on the device. Networks are strongly typed, so
precision is in the graph; TF32 is off.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ...bundle import Bundle
from ...errors import BackendError, BackendUnavailable, InputError, IntegrityError
from ...staging import replace_file
from ...wording import counted
from ..cover import Profile
from ..nvidia import gpu
from ..nvidia.cuda import Cuda
from ..table import missing
from .files import (
    VERSION_COMPATIBLE,
    PlanKey,
    PlanWarning,
    folder_of,
    read_plan,
    write_plan,
)
from .library import (
    Library,
    capabilities,
    cuda_major,
    import_library,
    needs_target,
    releasing,
)
from .network import define_network, optimization_profile, profiles_for
from .progress import Progress, interruptible, make_monitor

__all__ = ["BuildOptions", "build_plan", "check_plan", "plan_key"]


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built.

    Attributes:
        batch: Without `profiles`: from one to this many prompts in one call, on any number of the
            bank's noises.
        profiles: The sizes of call to build for, one optimisation profile each.
        workspace: Scratch memory that tactics may use, in bytes; None leaves it to the library.
        level: Optimisation level, 0 (builds fast) to 5 (runs fast); None leaves it to the library.
        targets: Compute capabilities that TensorRT for RTX builds for ("SM86"); none: its default,
            which runs on all of them from Ampere on.
        version_compatible: Whether newer versions of TensorRT may run the plan too.
        timing_cache: File in which TensorRT keeps what it measured, for the next build.
        device: Which GPU TensorRT builds on, from 0; None is the first.
    """

    batch: int = 4
    profiles: tuple[Profile, ...] = ()
    workspace: int | None = None
    level: int | None = None
    targets: tuple[str, ...] = ()
    version_compatible: bool = False
    timing_cache: Path | None = None
    device: int | None = None

    def __post_init__(self) -> None:
        Profile((1, self.batch))
        if self.workspace is not None and self.workspace < 2**20:
            raise InputError(f"A workspace of {self.workspace} bytes is too small. Give 1 MiB up.")
        if self.level is not None and not 0 <= self.level <= 5:
            raise InputError(f"Optimisation levels run from 0 to 5, not {self.level}.")

    @property
    def flags(self) -> tuple[str, ...]:
        """What else the plan's key says."""
        named = {"workspace": self.workspace, "level": self.level}
        given = tuple(f"{name}={value}" for name, value in named.items() if value is not None)
        return (*given, VERSION_COMPATIBLE) if self.version_compatible else given

    def sizes(self, bundle: Bundle, graph: str) -> tuple[Profile, ...]:
        """The profiles of one graph."""
        noises = bundle.manifest.noise_bank.shape[0]
        for profile in self.profiles:
            if profile.noises[1] > noises:
                raise InputError(
                    f"The bundle has {counted(noises, 'noise')}, so there is no {profile}."
                )
        return profiles_for(graph, self.profiles or [Profile((1, self.batch), (1, noises))])

    def check(self, backend: str) -> None:
        """Refuse what is for the other library.

        Raises:
            InputError: says which option.
        """
        if backend == "tensorrt" and self.targets:
            raise InputError("--target is for tensorrt-rtx; tensorrt builds for the GPU here.")
        if backend == "tensorrt-rtx" and (self.version_compatible or self.timing_cache):
            raise InputError(
                "--version-compatible and --timing-cache are for tensorrt: TensorRT for RTX loads "
                "plans of its own version only, and times nothing when it builds."
            )
        if backend == "tensorrt-rtx" and self.device is not None:
            raise InputError(
                "--device is for tensorrt: TensorRT for RTX builds on no GPU. Leave it out; "
                "--target says which GPUs its plan is for."
            )


def build_plan(
    bundle: Bundle,
    graph: str,
    folder: Path | None = None,
    *,
    backend: str = "tensorrt-rtx",
    options: BuildOptions | None = None,
    progress: Progress = lambda *_: None,
) -> Path:
    """Build a plan and write it, with its sidecar, to `folder`, unless it is there already.

    By default that is a folder of the user's cache. A plan that somebody else built is built again.

    Ctrl-C, or an exception from `progress`, stops the builder at its next step; nothing is written.

    Returns:
        The plan's file.

    Raises:
        InputError: no such backend, or options that it does not have.
        BackendUnavailable: its package is not installed, or onnx is not, or there is no GPU.
        BackendError: the graph cannot be parsed or built.
    """
    options = options or BuildOptions()
    trt = import_library(backend)
    options.check(backend)
    key, driver = plan_key(trt, backend, bundle, graph, options), None
    if backend == "tensorrt-rtx":
        _warn_of_the_gpu_here(Library.of(backend, trt), options)
    else:
        found = gpu.find(options.device or 0)
        key, driver = replace(key, gpu=found.name, sm=(found.sm,)), str(gpu.driver())
    folder = folder_of(bundle.id, folder, make=True)
    with _lock(folder, key):
        try:
            read_plan(folder, key)
        except (BackendError, IntegrityError):
            plan = _plan(Library.of(backend, trt), bundle, graph, options, progress)
            write_plan(folder, key, plan, driver)
    return folder / key.name


def check_plan(
    bundle: Bundle,
    graph: str,
    *,
    backend: str = "tensorrt-rtx",
    options: BuildOptions | None = None,
    progress: Progress = lambda *_: None,
) -> str:
    """Parse and build a graph, and throw the plan away.

    Returns:
        What it builds under: "TensorRT for RTX 1.7.1".

    Raises:
        InputError, BackendUnavailable, BackendError: as `build_plan`.
    """
    options = options or BuildOptions()
    trt = import_library(backend)
    options.check(backend)
    library = Library.of(backend, trt)
    _plan(library, bundle, graph, options, progress)
    return library.name


def plan_key(
    trt: ModuleType, backend: str, bundle: Bundle, graph: str, options: BuildOptions
) -> PlanKey:
    """The key of a plan that runs on any GPU of the targets."""
    files = bundle.manifest.files
    return PlanKey(
        backend=backend,
        version=trt.__version__,
        cuda=cuda_major(backend),
        bundle=bundle.id,
        graph=graph,
        graph_sha256=files[bundle.manifest.graphs[graph]].sha256,
        weights_sha256=tuple(files[name].sha256 for name in bundle.data_files()),
        precision=bundle.manifest.precision,
        profiles=options.sizes(bundle, graph),
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        gpu="any",
        sm=options.targets,
        flags=options.flags,
    )


def _warn_of_the_gpu_here(library: Library, options: BuildOptions) -> None:
    """The plan may be for another machine; but if it is for this one, it had better run."""
    try:
        here = gpu.find(0)
    except BackendUnavailable:
        return
    try:
        library.check_gpu(here)
    except BackendUnavailable as problem:
        warnings.warn(f"The plan will not run here. {problem}", PlanWarning, stacklevel=3)
        return
    needed = needs_target(library.backend, here.sm) and not options.targets
    if needed or (options.targets and here.sm not in options.targets):
        warnings.warn(
            f"The plan will not run on the GPU that is here ({here}). For this one, build with "
            f"--target {here.sm}.",
            PlanWarning,
            stacklevel=3,
        )


def _plan(
    library: Library,
    bundle: Bundle,
    graph: str,
    options: BuildOptions,
    progress: Progress,
) -> bytes:
    profiles = options.sizes(bundle, graph)
    cuda = Cuda(options.device or 0) if library.backend == "tensorrt" else None
    monitor = make_monitor(library.trt, progress)

    @releasing
    def build() -> Any:
        if cuda is not None:
            cuda.use()
        builder = library.make("Builder")
        network, alive = define_network(library, builder, bundle, graph)
        config = _config(library, builder, options)
        config.progress_monitor = monitor
        for profile in profiles:
            made = optimization_profile(library, builder, network, profile)
            library.got(config.add_optimization_profile(made), f"add the profile {profile}")
        with _timing_cache(library, config, options.timing_cache):
            plan = builder.build_serialized_network(network, config)
        del alive  # it had to outlive the build
        return plan

    plan = interruptible(build, monitor)
    if plan is None:
        raise library.failed(
            f"build {graph}",
            "If memory ran out, there are two remedies: smaller calls (--profile 1, --batch 1), or "
            "a limit on scratch memory (--workspace, in MiB).",
        )
    return bytes(plan)


def _config(library: Library, builder: Any, options: BuildOptions) -> Any:
    trt = library.trt
    config = library.got(builder.create_builder_config(), "make a builder's configuration")
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.workspace is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, options.workspace)
        if config.get_memory_pool_limit(pool) != options.workspace:  # it says nothing of a failure
            raise library.failed("take this --workspace", "Choose another limit.")
    if options.level is not None:
        config.builder_optimization_level = options.level
        if config.builder_optimization_level != options.level:
            raise library.failed(f"take --level {options.level}", "Choose another.")
    if options.targets:
        known = trt.ComputeCapability.__members__
        if unknown := [name for name in options.targets if name not in known]:
            raise InputError(
                f"{library.name} has no target {', '.join(unknown)}. "
                f"Choose from: {', '.join(capabilities(trt))}."
            )
        config.num_compute_capabilities = len(options.targets)
        for index, name in enumerate(options.targets):
            done = config.set_compute_capability(known[name], index)
            library.got(done, f"build for {name}", "Choose another --target.")
    return config


@contextmanager
def _timing_cache(library: Library, config: Any, path: Path | None) -> Iterator[None]:
    """Let the builder reuse what it measured before, and keep what it measures."""
    if path is None:
        yield
        return
    try:
        content = path.read_bytes() if path.exists() else b""
        what = f"use the timing cache {path}"
        remedy = (
            "What was measured on another GPU or by another version is of no use here: choose "
            "another --timing-cache, or delete this one."
        )
        cache = library.got(config.create_timing_cache(content), what, remedy)
        library.got(config.set_timing_cache(cache, False), what, remedy)
        yield
        path.parent.mkdir(parents=True, exist_ok=True)
        measured = library.got(cache.serialize(), f"keep timings in {path}", "Leave it out.")
        replace_file(path, bytes(measured))
    except OSError as error:
        raise BackendError(
            f"{path} cannot be used: {error}. Choose another --timing-cache."
        ) from None


@contextmanager
def _lock(folder: Path, key: PlanKey) -> Iterator[None]:
    """Only one process builds a plan; the others wait, and find it built."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise missing(key.backend, error) from None
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

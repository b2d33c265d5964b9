"""TensorRT and TensorRT for RTX: engines that `mnemoscope build` made, on an NVIDIA GPU.

Nothing is built here. An engine's key is checked before its bytes are looked at; then it is loaded
with an execution context for each of its profiles, with buffers that are allocated once and bound
once, and run on zeros, so that the first request finds everything ready. What a profile of one size
launches is captured in a CUDA graph and replayed.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..cuda import Cuda
from ..engines.files import ENGINES, VERSION_COMPATIBLE, find_engine
from ..engines.products import Library, import_library, needs_target
from ..engines.tensorrt import BuildOptions, engine_key
from ..errors import BackendError, InputError
from . import Arrays, Engine, Precision
from ._deserialize import deserialize
from ._execution import Worker
from .tiles import Profile, in_tiles

__all__ = ["TensorRt", "open_backend"]


def open_backend(
    name: str = "tensorrt",
    *,
    threads: int | None = None,  # noqa: ARG001
    precision: Precision | None = None,  # noqa: ARG001
    device: int = 0,
    engines: Path | None = None,
) -> TensorRt:
    """The backend of that name; it uses no CPU threads but the caller's.

    Raises:
        BackendUnavailable: the library, cuda-bindings, the driver or the GPU is missing.
    """
    return TensorRt(name, device=device, engines=engines)


class TensorRt:
    """Runs engines with TensorRT or TensorRT for RTX.

    Args:
        name: "tensorrt" or "tensorrt-rtx".
        device: Which GPU, from 0.
        engines: Folder with the engines; by default BUNDLE/engines.
        contexts: Calls that may run at once; each takes GPU memory of its own. Others wait.

    Of several engines for a graph that fit, the one that takes the largest calls is loaded: it can
    run all calls in the fewest pieces.
    """

    cuts_calls = True

    def __init__(
        self,
        name: str = "tensorrt",
        *,
        device: int = 0,
        engines: Path | None = None,
        contexts: int = 1,
    ) -> None:
        if contexts < 1:
            raise InputError(f"{contexts} contexts cannot run anything. Give 1 or more.")
        self.name = name
        self._trt: ModuleType = import_library(name)
        self._cuda = Cuda(device)
        Library.of(name, self._trt).check_gpu(self._cuda.gpu)
        self._folder = engines
        self._contexts = contexts
        self._engines: dict[tuple[str, str], _Pool] = {}
        self._lock = threading.Lock()

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Load the engine of a graph; the second call returns the first's.

        Raises:
            BackendError: there is no engine, it does not fit, or the GPU's memory does not suffice.
            IntegrityError: its file is damaged.
        """
        with self._lock:
            key = (bundle.id, graph)
            if key not in self._engines:
                self._engines[key] = self._open(bundle, graph)
            return self._engines[key]

    def close(self) -> None:
        """Give back what the engines hold on the GPU, once running calls are done."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    def _open(self, bundle: Bundle, graph: str) -> _Pool:
        self._cuda.use()
        sm = self._cuda.gpu.sm
        options = BuildOptions(targets=(sm,) if needs_target(self.name, sm) else ())
        wanted = engine_key(self._trt, self.name, bundle, graph, options)
        folder = self._folder or bundle.path / ENGINES
        driver = str(self._cuda.driver)
        key, plan = find_engine(
            folder, wanted, lambda built: wanted.to_run(built, self._cuda.gpu), driver
        )
        engine = deserialize(self._trt, self.name, plan, VERSION_COMPATIBLE in key.flags)
        workers: list[Worker] = []
        try:
            for _ in range(self._contexts):
                workers.append(Worker(engine, self._cuda, key.profiles))
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        return _Pool(self._cuda, workers, key.profiles)


class _Pool:
    """An engine for any number of threads, on a fixed number of workers."""

    def __init__(self, cuda: Cuda, workers: list[Worker], profiles: tuple[Profile, ...]) -> None:
        self._cuda = cuda
        self._profiles = profiles
        self._count = len(workers)
        self._leading = workers[0].leading
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        worker = self._idle.get()
        try:
            if worker is None:
                raise BackendError("This engine is closed. Open the bundle again.")
            self._cuda.use()
            return in_tiles(worker, inputs, outputs, self._profiles, self._leading)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Wait for every worker, and have whoever calls later told so."""
        self._cuda.use()
        for _ in range(self._count):
            worker = self._idle.get()
            if worker is not None:
                worker.close()
        self._idle.put(None)

"""TensorRT and TensorRT for RTX: runs plans that `mnemoscope build` made, on an NVIDIA GPU.

Nothing is built here. A plan's key is checked before its bytes are looked at; then it is loaded
with an execution context for each of its profiles, with buffers that are allocated once and bound
once, and run on zeros, so that the first request finds everything ready. What a profile of one size
launches is captured in a CUDA graph and replayed.
"""

from __future__ import annotations

import queue
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ...bundle import Bundle
from ...errors import BackendError, InputError
from ..base import Arrays, Backend, OwnProcess
from ..cover import Profile, run_covered
from ..nvidia.cuda import Cuda
from .build import BuildOptions, plan_key
from .deserialize import deserialize
from .files import VERSION_COMPATIBLE, find_plan, folder_of
from .library import Library, import_library, needs_target
from .worker import Worker

__all__ = ["TensorRt"]


class TensorRt(Backend):
    """Runs plans with TensorRT or TensorRT for RTX, on no CPU threads but the caller's.

    Args:
        name: "tensorrt" or "tensorrt-rtx".
        device: Which GPU, from 0.
        engines: Folder with the plans; by default one of the user's cache.
        contexts: Calls that may run at once; each takes GPU memory of its own. Others wait.

    Of several plans for a graph that fit, the one that takes the largest calls is loaded: it can
    run all calls in the fewest pieces.

    Raises:
        InputError: no contexts.
        BackendUnavailable: the library, cuda-bindings, the driver or the GPU is missing.
    """

    cuts_calls = True
    takes_any_length = False

    def __init__(
        self,
        name: str = "tensorrt",
        *,
        device: int = 0,
        engines: str | Path | None = None,
        contexts: int = 1,
    ) -> None:
        super().__init__()
        if contexts < 1:
            raise InputError(f"{contexts} contexts cannot run anything. Give 1 or more.")
        self.name = name
        self._trt: ModuleType = import_library(name)
        self._cuda = Cuda(device)
        Library.of(name, self._trt).check_gpu(self._cuda.gpu)
        self._folder = engines
        self._contexts = contexts

    def make_engine(self, bundle: Bundle, graph: str) -> _Pool:
        """Load the plan of a graph.

        Raises:
            BackendError: there is no plan, it does not fit, or the GPU's memory does not suffice.
            IntegrityError: its file is damaged, or was built by somebody else.
        """
        self._cuda.use()
        sm = self._cuda.gpu.sm
        options = BuildOptions(targets=(sm,) if needs_target(self.name, sm) else ())
        wanted = plan_key(self._trt, self.name, bundle, graph, options)
        key, plan = find_plan(
            folder_of(bundle.id, self._folder),
            wanted,
            lambda built: wanted.to_run(built, self._cuda.gpu),
            str(self._cuda.driver),
            bundle.trust,
        )
        loaded = deserialize(self._trt, self.name, plan, VERSION_COMPATIBLE in key.flags)
        workers: list[Worker] = []
        try:
            for _ in range(self._contexts):
                workers.append(Worker(loaded, self._cuda, key.profiles))
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        pool = _Pool(self.process, self._cuda, workers, key.profiles)
        self.closing.callback(pool.close)
        return pool


class _Pool:
    """An engine for any number of threads, on a fixed number of workers."""

    def __init__(
        self, process: OwnProcess, cuda: Cuda, workers: list[Worker], profiles: tuple[Profile, ...]
    ) -> None:
        self._process, self._cuda = process, cuda
        self._profiles = profiles
        self._count = len(workers)
        self._leading = workers[0].leading
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        self._process.check()
        worker = self._idle.get()
        try:
            if worker is None:
                raise BackendError("This engine is closed. Open the bundle again.")
            self._cuda.use()
            return run_covered(worker, inputs, outputs, self._profiles, self._leading)
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

"""CUDA itself: bytes to the device and back, also by a captured graph; all of it given back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mnemoscope_runtime import BackendError
from mnemoscope_runtime.backends.nvidia.cuda import Cuda, HostBuffer

from .setting import Setting

__all__ = ["HostCuda", "check", "measure"]

_SIZE, _ROUNDS = 2**20, 50


def measure(setting: Setting) -> Iterator[dict[str, Any]]:
    """Check, and time a replay of both copies."""
    yield check(HostCuda() if setting.is_rehearsal else Cuda())


def check(cuda: Cuda | HostCuda) -> dict[str, Any]:
    """Copy forth and back.

    Raises:
        BackendError: other bytes came back.
    """
    given = np.random.default_rng(0).integers(0, 256, _SIZE, np.uint8)
    there, back, stream = cuda.allocate_host(_SIZE), cuda.allocate_host(_SIZE), cuda.stream()
    address = cuda.allocate(_SIZE)

    def copy() -> None:
        cuda.upload(address, there, _SIZE, stream)
        cuda.download(back, address, _SIZE, stream)

    there[:] = given
    copy()
    cuda.synchronize(stream)
    copied = bool(np.array_equal(back, given))
    graph = cuda.capture(stream, copy)
    there[:] = given[::-1]
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        seconds.append(time.perf_counter() - start)
    replayed = bool(np.array_equal(back, given[::-1]))
    cuda.close_graph(graph)
    cuda.free(address)
    for buffer in (there, back):
        cuda.free_host(buffer)
    cuda.close_stream(stream)
    if not copied or not replayed:
        raise BackendError(f"Copied bytes are right: {copied}; by a graph: {replayed}.")
    return {"bytes": _SIZE, "replay_seconds": seconds}


class HostCuda:
    """Stands in for `Cuda` where there is no GPU: streams do at once what they are given."""

    def __init__(self) -> None:
        self._addresses = itertools.count(1)
        self._memory: dict[int, HostBuffer] = {}
        self._captured: list[Callable[[], None]] | None = None

    def allocate(self, size: int) -> int:
        address = next(self._addresses)
        self._memory[address] = np.zeros(size, np.uint8)
        return address

    def free(self, address: int) -> None:
        del self._memory[address]

    def allocate_host(self, size: int) -> HostBuffer:
        return np.zeros(size, np.uint8)

    def free_host(self, buffer: HostBuffer) -> None:
        """Numpy does."""

    def stream(self) -> int:
        return next(self._addresses)

    def close_stream(self, stream: int) -> None:
        """There is nothing of it."""

    def synchronize(self, stream: int) -> None:
        """Everything is done."""

    def upload(self, address: int, host: HostBuffer, size: int, stream: int) -> None:  # noqa: ARG002
        self._do(lambda: np.copyto(self._memory[address][:size], host[:size]))

    def download(self, host: HostBuffer, address: int, size: int, stream: int) -> None:  # noqa: ARG002
        self._do(lambda: np.copyto(host[:size], self._memory[address][:size]))

    def capture(self, stream: int, work: Callable[[], None]) -> list[Callable[[], None]]:  # noqa: ARG002
        self._captured = captured = []
        work()
        self._captured = None
        return captured

    def launch(self, graph: list[Callable[[], None]], stream: int) -> None:  # noqa: ARG002
        for each in graph:
            each()

    def close_graph(self, graph: list[Callable[[], None]]) -> None:
        graph.clear()

    def _do(self, work: Callable[[], None]) -> None:
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

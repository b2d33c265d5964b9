# ruff: noqa: N802, N815 (the names are CUDA's)
"""CUDA's runtime, of numpy and ctypes, as far as it is used.

Memory is real memory, but nothing happens before its stream is synchronised, and device and host
addresses are told apart: code that forgets one or mixes up the other fails.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any

Work = Callable[[], None]


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Mode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class FakeRuntime(ModuleType):
    """`cuda.bindings.runtime`, as far as it is used."""

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = Error, Kind, Mode
    cudaStreamNonBlocking = 1

    def __init__(self, memory: int = 2**30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.memory = memory
        self.device: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.launched = 0
        self._ids = itertools.count(1000)
        self._current = threading.local()

    def submit(self, stream: int, work: Work) -> Error:
        self.check_thread()
        assert stream in self.streams, "no such stream"
        self.capturing.get(stream, self.streams[stream]).append(work)
        return Error.cudaSuccess

    def check_thread(self) -> None:
        assert getattr(self._current, "device", None) == 0, "cudaSetDevice was not called here"

    def cudaSetDevice(self, device: int) -> tuple[Error]:
        self._current.device = device
        return (Error.cudaSuccess,)

    def cudaGetErrorString(self, code: Error) -> tuple[Error, bytes]:
        words = {Error.cudaErrorMemoryAllocation: b"out of memory"}
        return Error.cudaSuccess, words.get(code, b"invalid argument")

    def cudaRuntimeGetVersion(self) -> tuple[Error, int]:
        return Error.cudaSuccess, 13000

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        self.check_thread()
        if size + sum(map(len, self.device.values())) > self.memory:
            return Error.cudaErrorMemoryAllocation, None
        return Error.cudaSuccess, self._new(self.device, size)

    def cudaMallocHost(self, size: int) -> tuple[Error, int]:
        self.check_thread()
        return Error.cudaSuccess, self._new(self.host, size)

    def cudaFree(self, address: int) -> tuple[Error]:
        del self.device[address]
        return (Error.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[Error]:
        del self.host[address]
        return (Error.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:
        assert flags == self.cudaStreamNonBlocking
        stream = next(self._ids)
        self.streams[stream] = []
        return Error.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:
        del self.streams[stream]
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        assert stream not in self.capturing, "a stream cannot be synchronised while it captures"
        todo, self.streams[stream] = self.streams[stream], []
        for work in todo:
            work()
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: Kind, stream: int
    ) -> tuple[Error]:
        uploads = kind == Kind.cudaMemcpyHostToDevice
        into, out_of = (self.device, self.host) if uploads else (self.host, self.device)
        if to not in into or source not in out_of or size > min(len(into[to]), len(out_of[source])):
            return (Error.cudaErrorInvalidValue,)
        return (self.submit(stream, lambda: ctypes.memmove(to, source, size) and None),)

    def cudaStreamBeginCapture(self, stream: int, mode: Mode) -> tuple[Error]:
        assert mode == Mode.cudaStreamCaptureModeThreadLocal
        self.capturing[stream] = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, Any]:
        return Error.cudaSuccess, self.capturing.pop(stream)

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[Error, int]:
        assert flags == 0
        made = next(self._ids)
        self.graphs[made] = list(graph)
        return Error.cudaSuccess, made

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[Error]:
        graph.clear()
        return (Error.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:
        self.launched += 1
        self.streams[stream].extend(self.graphs[graph])
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Error]:
        del self.graphs[graph]
        return (Error.cudaSuccess,)

    def is_empty(self) -> bool:
        """Whether everything was given back."""
        return not (self.device or self.host or self.streams or self.graphs)

    def _new(self, where: dict[int, Any], size: int) -> int:
        buffer = (ctypes.c_uint8 * size)(*([0xAA] * min(size, 64)))
        where[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

# ruff: noqa: N802, N815 (the names are CUDA's)
"""A GPU of numpy and ctypes: `cuda.bindings.runtime`, the driver, and a TensorRT that computes.

Memory is real memory, but a copy or an engine does nothing before its stream is synchronised, and
device and host addresses are told apart: code that forgets one or mixes up the other fails.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mnemoscope_runtime import gpu
from mnemoscope_runtime.errors import BackendUnavailable

CARD = gpu.Gpu("NVIDIA Fake 4090", "SM89", 24 * 2**30)
DRIVER = gpu.Driver("580.65.06", "13.0", (CARD,))
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


def magnitude(ids: np.ndarray, noise_index: np.ndarray) -> np.ndarray:
    """What the fake `screen` computes: depends on every id, its place, and the noise."""
    weight = np.cos(np.arange(ids.shape[1], dtype=np.float32))
    rows = (np.sin(ids.astype(np.float32)) * weight).sum(1, dtype=np.float32)
    return np.abs(rows[:, None] * (1 + noise_index.astype(np.float32)) + 1)  # [B, m]


def step(
    prompt_embeds: np.ndarray, empty_embeds: np.ndarray, latents: np.ndarray, timestep: np.ndarray
) -> dict[str, np.ndarray]:
    """What the fake `step` computes."""
    cond, uncond = (
        (latents * e.mean((1, 2), dtype=np.float32)[:, None, None, None] + np.float32(timestep))
        for e in (prompt_embeds, empty_embeds)
    )
    norm = np.sqrt(np.square(cond - uncond).reshape(len(latents), -1).sum(1))
    return {"magnitude": norm, "eps_cond": cond, "eps_uncond": uncond}


GRAPHS: dict[str, dict[str, Any]] = {
    "screen": {
        "inputs": {"input_ids": ("int64", [-1, 77]), "noise_index": ("int64", [-1])},
        "outputs": {"magnitude": ["input_ids", "noise_index"]},
        "run": lambda v: {"magnitude": magnitude(v["input_ids"], v["noise_index"])},
    },
    "step": {
        "inputs": {
            "prompt_embeds": ("float32", [-1, 77, 32]),
            "empty_embeds": ("float32", [1, 77, 32]),
            "latents": ("float32", [-1, 4, 8, 8]),
            "timestep": ("int64", []),
        },
        "outputs": {
            "magnitude": ["latents"],
            "eps_cond": ["latents", 4, 8, 8],
            "eps_uncond": ["latents", 4, 8, 8],
        },
        "run": lambda v: step(**v),
    },
}


def plan(graph: str, profiles: Any) -> bytes:
    """The bytes of an engine for the fake TensorRT."""
    ranges = [{"prompts": p.prompts, "noises": p.noises} for p in profiles]
    return json.dumps({"graph": graph, "profiles": ranges}).encode()


class FakeEngine:
    def __init__(self, trt: FakeTensorRt, content: dict[str, Any]) -> None:
        self.trt = trt
        self.content = content
        self.graph = GRAPHS[content["graph"]]
        self.num_optimization_profiles = len(content["profiles"])
        self.names = [*self.graph["inputs"], *self.graph["outputs"]]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.graph["inputs"] else "out"

    def get_tensor_location(self, name: str) -> str:
        return self.trt.locations.get(name, "device")

    def get_tensor_dtype(self, name: str) -> str:
        return self.graph["inputs"].get(name, ("float32",))[0]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.graph["inputs"][name][1]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        low, high = self.content["profiles"][index]["noises" if "noise" in name else "prompts"]
        shape = self.get_tensor_shape(name)
        return [[size if axis < 0 else axis for axis in shape] for size in (low, low, high)]

    def create_execution_context(self, strategy: str) -> FakeContext | None:
        assert strategy == "on profile change"
        return None if self.trt.no_contexts else FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.rt = engine, engine.trt.rt
        self.profile = -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.busy = threading.Lock()

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self.rt.streams
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile >= 0, "no profile was selected"
        low, _, high = self.engine.get_tensor_profile_shape(name, self.profile)
        fits = len(shape) == len(high) and all(
            a <= s <= b for a, s, b in zip(low, shape, high, strict=True)
        )
        if fits:
            self.shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> list[int]:
        if name in self.shapes:
            return list(self.shapes[name])
        dims = self.engine.graph["outputs"][name]
        return [self.shapes[d][0] if isinstance(d, str) else d for d in dims]

    def set_tensor_address(self, name: str, address: int) -> bool:
        on_host = self.engine.get_tensor_location(name) == "host"
        assert address in (self.rt.host if on_host else self.rt.device)
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.engine.trt
        if trt.fails:
            trt.last_logger.log(1, "the kernel went wrong")
            return False
        assert set(self.addresses) == set(self.engine.names), "a tensor has no address"
        shapes = {name: tuple(self.get_tensor_shape(name)) for name in self.engine.names}
        self.rt.submit(stream, lambda: self._run(shapes))
        return not (stream in self.rt.capturing and trt.cannot_capture)

    def _run(self, shapes: dict[str, tuple[int, ...]]) -> None:
        assert self.busy.acquire(blocking=False), "two threads run one context"
        try:
            time.sleep(0.0005)
            inputs = {name: self._array(name, shapes[name]) for name in self.engine.graph["inputs"]}
            for name, value in self.engine.graph["run"](inputs).items():
                self._array(name, shapes[name])[...] = value
            self.engine.trt.calls.append((self.profile, shapes))
        finally:
            self.busy.release()

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(self.engine.get_tensor_dtype(name))
        size = math.prod(shape) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


class FakeTensorRt(ModuleType):
    """The `tensorrt` module, as far as running engines goes."""

    __version__ = "10.3.0"

    def __init__(self, rt: FakeRuntime) -> None:
        super().__init__("tensorrt")
        self.rt = rt
        self.calls: list[tuple[int, dict[str, tuple[int, ...]]]] = []
        self.no_contexts = self.fails = self.cannot_capture = False
        self.locations: dict[str, str] = {}
        self.host_code: list[bool] = []
        self.last_logger: Any = None
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.TensorLocation = SimpleNamespace(HOST="host", DEVICE="device")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(
            ON_PROFILE_CHANGE="on profile change"
        )
        trt = self

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

            def log(self, severity: int, message: str) -> None: ...

        class Runtime:
            engine_host_code_allowed = False

            def __init__(self, logger: Any) -> None:
                trt.last_logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
                trt.host_code.append(self.engine_host_code_allowed)
                try:
                    return FakeEngine(trt, json.loads(content))
                except ValueError:
                    trt.last_logger.log(1, "magic tag does not match")
                    return None

        self.ILogger, self.Runtime = ILogger, Runtime

    @staticmethod
    def nptype(dtype: str) -> type:
        return np.dtype(dtype).type


def make_rtx(trt: FakeTensorRt) -> None:
    """Give the fake what TensorRT for RTX has and TensorRT has not."""
    trt.validity = (0, 0)
    trt.strategies = []
    trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")
    trt.EngineValidity = IntEnum("EngineValidity", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
    trt.EngineInvalidityDiagnostics = IntEnum(
        "EngineInvalidityDiagnostics",
        {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4},
    )

    class Runtime(trt.Runtime):
        engine_header_size = 8

        def get_engine_validity(self, header: bytes) -> tuple[int, int]:
            assert len(header) == self.engine_header_size
            return trt.validity

        def deserialize_cuda_engine(self, content: bytes) -> RtxEngine:
            trt.host_code.append(self.engine_host_code_allowed)
            return RtxEngine(trt, json.loads(content))

    trt.Runtime = Runtime


class RtxEngine(FakeEngine):
    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(cuda_graph_strategy=None)

    def create_execution_context(self, config: SimpleNamespace) -> FakeContext:
        self.trt.strategies.append(config.cuda_graph_strategy)
        return FakeContext(self)


def no_driver() -> gpu.Driver:
    """What `gpu.driver` does where there is none."""
    raise BackendUnavailable("There is no NVIDIA driver here.")


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    """One GPU with a driver, and CUDA's runtime."""
    runtime = FakeRuntime()
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setattr(gpu, "driver", lambda: DRIVER)
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    return runtime


@pytest.fixture
def fake_trt(fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """TensorRT on that GPU."""
    trt = FakeTensorRt(fake_cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt

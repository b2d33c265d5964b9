"""A GPU of numpy: CUDA's runtime (see fake_cuda), the driver, and a TensorRT that computes."""

from __future__ import annotations

import ctypes
import json
import math
import sys
import threading
import time
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeRuntime

from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.errors import BackendUnavailable

CARD = gpu.Gpu("NVIDIA Fake 4090", "SM89", 24 * 2**30)
DRIVER = gpu.Driver("580.65.06", "13.0", (CARD,))


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
    trt.said = None
    trt.configs = []
    trt.refuses_cache = False
    trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")
    trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    trt.ComputeCapability = IntEnum(
        "ComputeCapability", ["NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"]
    )
    trt.EngineValidity = IntEnum("EngineValidity", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
    trt.EngineInvalidityDiagnostics = IntEnum(
        "EngineInvalidityDiagnostics",
        {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "CUDA_ERROR": 64},
    )

    class Runtime(trt.Runtime):
        engine_header_size = 8

        def get_engine_validity(self, header: bytes) -> tuple[int, int]:
            assert len(header) == self.engine_header_size
            if trt.said:
                trt.last_logger.log(1, trt.said)
            return trt.validity

        def deserialize_cuda_engine(self, content: bytes) -> RtxEngine:
            trt.host_code.append(self.engine_host_code_allowed)
            return RtxEngine(trt, json.loads(content))

    trt.Runtime = Runtime


class RtxConfig:
    cuda_graph_strategy = dynamic_shapes_kernel_specialization_strategy = "library's choice"

    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt
        self.strategy = "static"
        self.cache: object = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> object:
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self.cache = cache
        return not self.trt.refuses_cache


class RtxEngine(FakeEngine):
    def create_runtime_config(self) -> RtxConfig:
        return RtxConfig(self.trt)

    def create_execution_context(self, config: RtxConfig) -> FakeContext:
        self.trt.configs.append(config)
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

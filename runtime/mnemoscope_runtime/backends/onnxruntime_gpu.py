"""ONNX Runtime on NVIDIA GPUs: its CUDA provider, and its TensorRT provider.

A session is made for one shape. The open dimensions of the graph are fixed when it is made, so that
ONNX Runtime computes all shapes then and no node is left for the CPU; inputs and outputs have
device buffers that are bound once; and what a run launches is captured in a CUDA graph, while the
backend loads, and replayed from then on. Calls of other sizes are cut to that shape. All of that
happens on one thread of the backend's own, since ONNX Runtime keeps CUDA graphs by thread.
"""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import gpu
from ..bundle import Bundle
from ..cuda_errors import driver_too_old
from ..errors import BackendError, BackendUnavailable, InputError
from . import Arrays, Engine, Precision
from ._binding import Bound
from ._thread import OneThread
from .onnxruntime import import_onnxruntime, make_session
from .tiles import Profile, in_tiles

__all__ = ["OnnxRuntimeGpu", "open_backend"]

_EXTRA = "onnxruntime-gpu"
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# nothing runs on the CPU without a word: a node that would is an error
_BFLOAT16_OPSET = 22
_CONFIG = {"session.disable_cpu_ep_fallback": "1"}


@dataclass(frozen=True)
class _Kind:
    """What tells the backends of this module from each other.

    Attributes:
        provider: ONNX Runtime's name for it.
        needs: What it needs beside CUDA.
        remedy: How to get what no extra brings.
        libraries: What it links to.
        memory: Where buffers are, in ONNX Runtime's words.
    """

    provider: str
    needs: str
    remedy: str
    libraries: tuple[str, ...]
    memory: str = "cuda"


_LIBRARIES = (
    "libcudart.so.{cuda}",
    "libcublasLt.so.{cuda}",
    "libcublas.so.{cuda}",
    "libcudnn.so.9",
)
_KINDS = {
    "onnxruntime-cuda": _Kind(_CUDA, " and cuDNN 9", "", (*_LIBRARIES, "libcurand.so.10")),
    "onnxruntime-tensorrt": _Kind(
        _TENSORRT,
        ", cuDNN 9 and TensorRT 10",
        "; TensorRT 10 comes from NVIDIA and must be on LD_LIBRARY_PATH",
        (*_LIBRARIES, "libnvinfer.so.10", "libnvonnxparser.so.10"),
    ),
}


def open_backend(
    name: str = "onnxruntime-cuda",
    *,
    threads: int | None = None,
    precision: Precision | None = None,  # noqa: ARG001
    device: int = 0,
) -> OnnxRuntimeGpu:
    """The GPU backend of that name.

    Raises:
        BackendUnavailable: onnxruntime-gpu, the driver or the GPU is missing.
    """
    return OnnxRuntimeGpu(name, threads=threads, device=device)


class OnnxRuntimeGpu:
    """Loads graphs into ONNX Runtime sessions on a GPU.

    Args:
        name: "onnxruntime-cuda" or "onnxruntime-tensorrt".
        threads: CPU threads, or ONNX Runtime's choice.
        device: Which GPU, from 0.
        batch: Prompts that one run takes; fewer are padded, more are cut. 1 has the least latency.
        cuda_graphs: Whether to capture and replay what a run launches.
        cache: Where the TensorRT provider keeps what it builds; by default
            BUNDLE/engines/onnxruntime-tensorrt.
    """

    cuts_calls = True

    def __init__(
        self,
        name: str = "onnxruntime-cuda",
        *,
        threads: int | None = None,
        device: int = 0,
        batch: int = 1,
        cuda_graphs: bool = True,
        cache: Path | None = None,
    ) -> None:
        self.name = name
        self._kind = _KINDS[name]
        self._ort = import_onnxruntime(name, _EXTRA)
        self._check_provider()
        self._check_gpu(device)
        self._check_libraries()
        self._threads = threads
        self._device = device
        self._profile = Profile((batch, batch))
        self._cuda_graphs = cuda_graphs
        self._cache = cache
        self._engines: dict[tuple[str, str], _Cut] = {}
        self._lock = threading.Lock()
        self._thread: OneThread | None = None

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Make a session from the verified bytes of a graph; the second call returns the first's.

        With the TensorRT provider this builds the engine, unless the cache has it; that takes
        minutes. Calls to the engine never build.

        Raises:
            InputError: the TensorRT provider cannot keep to the precision of the graph.
            BackendError: ONNX Runtime refuses the graph, or would run part of it on the CPU.
            BackendUnavailable: the provider did not load; says what it needs.
        """
        with self._lock:
            key = (bundle.id, graph)
            if key not in self._engines:
                thread = self._thread = self._thread or OneThread(self.name)
                bound = thread.run(lambda: self._bound(bundle, graph))
                self._engines[key] = _Cut(bound, self._profile, thread)
            return self._engines[key]

    def close(self) -> None:
        """Let go of every session, once running calls are done; engines raise from then on."""
        with self._lock:
            engines, thread = list(self._engines.values()), self._thread
            self._engines.clear()
            self._thread = None
            if thread is not None:
                for engine in engines:
                    thread.run(engine.release)
                thread.close()

    def _bound(self, bundle: Bundle, graph: str) -> Bound:
        session = self._session(bundle, graph)
        bound = Bound(self._ort, session, self._kind.memory, self._device)
        bound.warm_up()
        return bound

    def _check_provider(self) -> None:
        there = self._ort.get_available_providers()
        if self._kind.provider not in there:
            raise BackendUnavailable(
                f"onnxruntime {self._ort.__version__} is here without {self._kind.provider} (it "
                f"has {', '.join(there)}). The package onnxruntime has none for GPUs, and hides "
                "onnxruntime-gpu where both are installed: uninstall both, then "
                f"`pip install 'mnemoscope[{_EXTRA}]'`."
            )

    def _check_gpu(self, device: int) -> None:
        card, driver, wanted = gpu.find(device), gpu.driver(), int(self._cuda_major)
        if int(driver.cuda.partition(".")[0]) < wanted:
            raise BackendUnavailable(driver_too_old(driver, driver.cuda, wanted))
        if wanted >= 13 and int(card.sm.removeprefix("SM")) < 75:
            raise BackendUnavailable(
                f"{self.name} needs CUDA {wanted}, which has no code for {card}: it begins with "
                "compute capability 7.5. Use a backend on the CPU here."
            )

    @property
    def _cuda_major(self) -> str:
        major: str = self._ort.cuda_version.partition(".")[0]
        return major

    def _check_libraries(self) -> None:
        """Whether what the provider links to can be loaded: asked first, it is said clearly."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            self._ort.preload_dlls()  # what pip installed of CUDA and cuDNN
        major = self._cuda_major
        wanted = [name.format(cuda=major) for name in self._kind.libraries]
        if lacking := gpu.lacking(wanted):
            raise BackendUnavailable(
                f"{self.name} needs CUDA {major}{self._kind.needs}, but these libraries "
                f"cannot be loaded: {', '.join(lacking)}. "
                f"`pip install 'mnemoscope[{_EXTRA}]'` brings CUDA and cuDNN{self._kind.remedy}."
            )

    def _session(self, bundle: Bundle, graph: str) -> Any:
        manifest = bundle.manifest
        if manifest.precision == "bfloat16" and manifest.opset < _BFLOAT16_OPSET:
            raise BackendUnavailable(
                f"{bundle.path} is in bfloat16 in ONNX's opset {manifest.opset}, which convolves "
                f"none before {_BFLOAT16_OPSET}. Export the model again with this version."
            )
        try:
            session = make_session(
                self._ort,
                bundle,
                graph,
                self._providers(bundle, graph),
                threads=self._threads,
                fixed={"batch": self._profile.prompts[0], "noises": 1},
                config=_CONFIG,
            )
        except BackendError as error:
            if "CPU EP" in str(error):
                raise BackendUnavailable(self._elsewhere("part of the graph on the CPU")) from None
            raise
        actual = session.get_providers()
        if not actual or actual[0] != self._kind.provider:
            raise BackendUnavailable(self._elsewhere(str(actual)))
        return session

    def _elsewhere(self, where: str) -> str:
        found = gpu.driver()
        return (
            f"Asked ONNX Runtime for {self._kind.provider}, it would run {where}. It needs CUDA "
            f"{self._ort.cuda_version}{self._kind.needs}; the driver here ({found}) supports "
            f"CUDA up to {found.cuda}. `mnemoscope doctor` shows what is missing."
        )

    def _providers(self, bundle: Bundle, graph: str) -> list[tuple[str, dict[str, str]]]:
        device, graphs = str(self._device), str(int(self._cuda_graphs))
        # use_tf32: matrix products of float32 graphs would otherwise round to 10 bits
        cuda = {"device_id": device, "use_tf32": "0"}
        if self._kind.provider != _TENSORRT:
            return [(self._kind.provider, {**cuda, "enable_cuda_graph": graphs})]
        if bundle.manifest.precision != "float32":
            raise InputError(
                "onnxruntime-tensorrt builds weakly typed networks, which may compute the norm of "
                f"a {bundle.manifest.precision} graph in that precision too. Use onnxruntime-cuda "
                "or tensorrt for this bundle, or export it in float32."
            )
        options = {
            "device_id": device,
            "trt_cuda_graph_enable": graphs,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self._folder(bundle, graph)),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self._folder(bundle, graph)),
            "trt_load_user_initializer": "1",  # weights beside the graph: 2 GB is protobuf's limit
        }
        return [(_TENSORRT, options), (_CUDA, cuda)]

    def _folder(self, bundle: Bundle, graph: str) -> Path:
        """Engines of one graph of one bundle in one shape; the provider adds the GPU to names."""
        root = self._cache or bundle.path / "engines" / self.name
        version = self._ort.__version__
        folder = root / f"{bundle.id[:16]}.{graph}.{self._profile}.onnxruntime-{version}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BackendError(
                f"{folder} cannot be made: {error}. Give another folder: "
                "OnnxRuntimeGpu('onnxruntime-tensorrt', cache=...)."
            ) from None
        return folder


class _Cut:
    """A bound session for calls of any size; one at a time, on the thread that made it."""

    def __init__(self, bound: Bound, profile: Profile, thread: OneThread) -> None:
        self._bound: Bound | None = bound
        self._profiles, self._thread = [profile], thread

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        return self._thread.run(lambda: self._run(inputs, outputs))

    def release(self) -> None:
        """Let go of the session, there where it keeps its CUDA graphs."""
        self._bound = None

    def _run(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        if self._bound is None:
            raise BackendError("This engine is closed. Open the bundle again.")
        return in_tiles(self._bound, inputs, outputs, self._profiles, self._bound.leading)

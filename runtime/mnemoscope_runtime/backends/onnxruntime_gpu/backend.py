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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle import Bundle
from ...errors import BackendError, BackendUnavailable, InputError
from ...manifest import Precision
from ...user_cache import private_folder
from ...wording import pip_install
from ..base import Arrays, Backend
from ..cover import Profile, run_covered
from ..nvidia import gpu
from ..nvidia.errors import driver_too_old
from ..onnxruntime import import_onnxruntime, make_session
from .binding import Bound
from .kept import kept_folder
from .thread import OneThread

__all__ = ["OnnxRuntimeGpu"]

_EXTRA = "onnxruntime-gpu"
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# nothing runs on the CPU without a word: a node that would is an error
_BFLOAT16_OPSET = 22
_CONFIG = {"session.disable_cpu_ep_fallback": "1"}
# float32 is not rounded to TF32's 10 bits. The option keeps all convolutions from tensor cores,
# those in half precision too, which have no other use for it. Channels last: as measured in float16
_MATH: dict[Precision, dict[str, str]] = {
    "float32": {"use_tf32": "0"},
    "bfloat16": {"use_tf32": "1"},
    "float16": {"use_tf32": "1", "prefer_nhwc": "1"},
}


@dataclass(frozen=True)
class _Provider:
    """What runs a session, and tells the backends of this module from each other.

    Attributes:
        name: As ONNX Runtime calls it.
        needs: What it needs beside CUDA.
        remedy: How to get what no extra brings.
        libraries: What it links to.
        memory: Where buffers are, in ONNX Runtime's words.
    """

    name: str
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
_PROVIDERS = {
    "onnxruntime-cuda": _Provider(_CUDA, " and cuDNN 9", "", (*_LIBRARIES, "libcurand.so.10")),
    "onnxruntime-tensorrt": _Provider(
        _TENSORRT,
        ", cuDNN 9 and TensorRT 10",
        "; TensorRT 10 comes from NVIDIA and must be on LD_LIBRARY_PATH",
        (*_LIBRARIES, "libnvinfer.so.10", "libnvonnxparser.so.10"),
    ),
}


class OnnxRuntimeGpu(Backend):
    """Runs graphs as ONNX Runtime sessions on a GPU.

    Args:
        name: "onnxruntime-cuda" or "onnxruntime-tensorrt".
        threads: CPU threads, or ONNX Runtime's choice.
        device: Which GPU, from 0.
        batch: Prompts that one run takes; fewer are padded, more are cut. 1 has the least latency.
        engines: The TensorRT provider keeps what it builds in a folder of this one; by default of
            the user's cache.

    Raises:
        BackendUnavailable: onnxruntime-gpu, the driver or the GPU is missing.
    """

    cuts_calls = True
    takes_any_length = False

    def __init__(
        self,
        name: str = "onnxruntime-cuda",
        *,
        threads: int | None = None,
        device: int = 0,
        batch: int = 1,
        engines: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self._profile = Profile((batch, batch))
        self._provider = _PROVIDERS[name]
        self._ort = import_onnxruntime(name)
        self._check_provider()
        self._check_gpu(device)
        self._check_libraries()
        self._threads = threads
        self._device = device
        self._root = engines
        self._thread: OneThread | None = None

    def make_engine(self, bundle: Bundle, graph: str) -> _Cut:
        """A session from the verified bytes of a graph.

        With the TensorRT provider this builds the engine, unless the cache has it; that takes
        minutes. Calls to the engine never build.

        Raises:
            InputError: the TensorRT provider cannot keep to the precision of the graph.
            BackendError: ONNX Runtime refuses the graph, or would run part of it on the CPU.
            BackendUnavailable: the provider did not load; says what it needs.
        """
        if self._thread is None:
            self._thread = OneThread(self.name)
            self.closing.callback(self._end)
        thread = self._thread
        engine = _Cut(thread.run(lambda: self._bound(bundle, graph)), self._profile, thread)
        self.closing.callback(thread.run, engine.release)
        return engine

    def _end(self) -> None:
        """Of the thread, after the last of its engines."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def _bound(self, bundle: Bundle, graph: str) -> Bound:
        with self._kept(bundle, graph) as folder:
            session = self._session(bundle, graph, self._providers(bundle, folder))
            bound = Bound(self._ort, session, self._provider.memory, self._device)
            bound.warm_up()
        return bound

    def _check_provider(self) -> None:
        there = self._ort.get_available_providers()
        if self._provider.name not in there:
            raise BackendUnavailable(
                f"onnxruntime {self._ort.__version__} is here without {self._provider.name} (it "
                f"has {', '.join(there)}). The package onnxruntime has none for GPUs, and hides "
                "onnxruntime-gpu where both are installed: uninstall both, then "
                f"{pip_install(_EXTRA)}."
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
        wanted = [name.format(cuda=major) for name in self._provider.libraries]
        if lacking := gpu.lacking(wanted):
            raise BackendUnavailable(
                f"{self.name} needs CUDA {major}{self._provider.needs}, but these libraries "
                f"cannot be loaded: {', '.join(lacking)}. "
                f"{pip_install(_EXTRA)} brings CUDA and cuDNN"
                f"{self._provider.remedy}."
            )

    def _session(self, bundle: Bundle, graph: str, providers: list[Any]) -> Any:
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
                providers,
                threads=self._threads,
                fixed={"batch": self._profile.prompts[0], "noises": 1},
                config=_CONFIG,
            )
        except BackendError as error:
            if "CPU EP" in str(error):
                raise BackendUnavailable(self._elsewhere("part of the graph on the CPU")) from None
            raise
        actual = session.get_providers()
        if not actual or actual[0] != self._provider.name:
            raise BackendUnavailable(self._elsewhere(str(actual)))
        return session

    def _elsewhere(self, where: str) -> str:
        found = gpu.driver()
        return (
            f"Asked ONNX Runtime for {self._provider.name}, it would run {where}. It needs CUDA "
            f"{self._ort.cuda_version}{self._provider.needs}; the driver here ({found}) supports "
            f"CUDA up to {found.cuda}. `mnemoscope doctor` shows what is missing."
        )

    def _providers(self, bundle: Bundle, kept: Path | None) -> list[tuple[str, dict[str, str]]]:
        device, precision = str(self._device), bundle.manifest.precision
        cuda = {"device_id": device, **_MATH[precision]}
        if self._provider.name != _TENSORRT:
            return [(self._provider.name, {**cuda, "enable_cuda_graph": "1"})]
        if precision != "float32":
            raise InputError(
                "onnxruntime-tensorrt builds weakly typed networks, which may compute the norm of "
                f"a {precision} graph in that precision too. Use onnxruntime-cuda "
                "or tensorrt for this bundle, or export it in float32."
            )
        options = {
            "device_id": device,
            "trt_cuda_graph_enable": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(kept),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(kept),
            "trt_load_user_initializer": "1",  # weights beside the graph: 2 GB is protobuf's limit
        }
        return [(_TENSORRT, options), (_CUDA, cuda)]

    def _kept(self, bundle: Bundle, graph: str) -> AbstractContextManager[Path | None]:
        """Where engines of one graph in one shape are kept; the provider adds the GPU to names."""
        if self._provider.name != _TENSORRT:
            return nullcontext()
        root = Path(self._root) if self._root else private_folder("plans", bundle.id)
        name = f"{bundle.id[:16]}.{graph}.{self._profile}.onnxruntime-{self._ort.__version__}"
        return kept_folder(root / self.name / name)


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
        return run_covered(self._bound, inputs, outputs, self._profiles, self._bound.leading)

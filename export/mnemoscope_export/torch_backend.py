"""PyTorch as a backend: a bundle's graphs as the modules that they were exported from."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime import Bundle, Engine
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.backends._thread import OneThread
from mnemoscope_runtime.errors import BackendError, BackendUnavailable
from mnemoscope_runtime.manifest import EMPTY, Precision

from .graphs import Graph, Inputs, ScreenGraph, StepGraph, TextEncoderGraph
from .models import StableDiffusion

__all__ = ["TorchBackend"]


class TorchBackend:
    """Runs bundles of one model in PyTorch, on as many threads as torch is set to.

    backend = TorchBackend(StableDiffusion.load("my-model"))
    detector = Detector.load("my-bundle", backend=backend, uncalibrated="score")
    """

    def __init__(
        self,
        model: StableDiffusion,
        *,
        precision: Precision = "float32",
        device: str = "cpu",
        compiler: str | None = None,
    ) -> None:
        """Copy a model to a device.

        Args:
            model: In float32; left as it is.
            precision: What layers compute in; differences and norms are float32 in any case.
            device: "cpu", "cuda", "cuda:1", ...
            compiler: Backend of `torch.compile`, such as "inductor"; None runs eagerly. On a GPU
                it replays CUDA graphs ("reduce-overhead"), on a thread of its own: PyTorch, too,
                records and keeps them for every thread that runs what was compiled.

        Raises:
            BackendUnavailable: torch cannot use the device.
        """
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: built without CUDA
            raise BackendUnavailable(
                f"PyTorch {torch.__version__} cannot use {device!r}: {error} "
                "Give device='cpu', or install a build of PyTorch for this device."
            ) from None
        self._weights = model.weights_sha256()
        self._model = model.to(getattr(torch, precision))
        for part in self._model.parts.values():
            part.to(device)
        self._device = torch.device(device)
        self._compiler = compiler
        self._engines: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()
        self._thread: OneThread | None = None
        name = "torch" if compiler is None else f"torch-{compiler}"
        self.name = name if precision == "float32" else f"{name}:{precision}"

    @property
    def model(self) -> StableDiffusion:
        """The copy that it runs, for what looks inside a model."""
        return self._model

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """The module of a graph; the second call returns the first's.

        Raises:
            BackendError: the bundle was exported from other weights.
        """
        record = bundle.manifest.model
        if difference := self._model.difference(record, self._weights):
            raise BackendError(
                f"{bundle.path} was exported from {record.id}, {difference} of {self._model.id}. "
                "Give the model it was exported from, loaded as it was then."
            )
        with self._lock:
            key = (bundle.id, graph)
            if key not in self._engines:
                if self._keeps_cuda_graphs and self._thread is None:
                    self._thread = OneThread(self.name)
                self._engines[key] = self._engine(bundle, graph, self._thread)
            return self._engines[key]

    def close(self) -> None:
        """Let go of every module."""
        with self._lock:
            self._engines.clear()
            if self._thread is not None:
                self._thread.close()
                self._thread = None

    @property
    def _keeps_cuda_graphs(self) -> bool:
        return self._compiler is not None and self._device.type == "cuda"

    @torch.inference_mode()
    def _engine(self, bundle: Bundle, graph: str, thread: OneThread | None) -> Engine:
        module = self._module(bundle, graph).eval()
        run = module
        if self._compiler is not None:
            options = {"mode": "reduce-overhead"} if self._device.type == "cuda" else {}
            run = torch.compile(module, backend=self._compiler, **options)  # type: ignore[call-overload]

        # a module with taps keeps features while it runs
        one_at_a_time = threading.Lock() if bundle.manifest.taps else nullcontext()

        @torch.inference_mode()
        def here(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            tensors = {
                name: torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
                for name, value in inputs.items()
            }
            try:
                with one_at_a_time:
                    found = run(*_arguments(module, tensors))
            except RuntimeError as error:  # out of memory, for one
                raise BackendError(f"PyTorch failed: {error}") from None
            named = dict(zip(module.outputs, found, strict=True))
            return [named[name].cpu().numpy() for name in outputs]

        if thread is None:
            return here
        return lambda inputs, outputs: thread.run(lambda: here(inputs, outputs))

    def _module(self, bundle: Bundle, graph: str) -> Graph:
        if graph == "text_encoder":
            return TextEncoderGraph(self._model)
        if graph == "step":
            return StepGraph(self._model, bundle.manifest.taps).to(self._device)
        noises, manifest = torch.from_numpy(bundle.noise_bank()), bundle.manifest
        stop = graph == "taps"
        taps = () if "taps" in manifest.graphs and not stop else manifest.taps
        screen = ScreenGraph(self._model, noises, manifest.timestep, taps, stop=stop)
        return screen.to(self._device)


def _arguments(graph: Graph, tensors: dict[str, Tensor]) -> Inputs:
    """The graph's inputs, by name, as `forward` takes them."""
    if not isinstance(graph, StepGraph):
        return tuple(tensors[name] for name in graph.inputs)
    names = graph.model.embeddings
    embeds = tuple(tensors[name] for name in names)
    empty = tuple(tensors[EMPTY[name]] for name in names)
    return embeds, empty, tensors["latents"], tensors["timestep"]

"""PyTorch as a backend: a bundle's graphs as the modules that they were exported from."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime import Backend, Bundle, Engine
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.backends.cover import NOISES, Profile, run_covered
from mnemoscope_runtime.errors import BackendError, BackendUnavailable, BundleError
from mnemoscope_runtime.manifest import EMPTY, Precision
from mnemoscope_runtime.user_cache import private_folder

from ..models import Model
from .graphs import Graph, Inputs, ScreenGraph, StepGraph, TextEncoderGraph
from .replayed import Replayed, Run

__all__ = ["TorchBackend"]


class TorchBackend(Backend):
    """Runs bundles of one model in PyTorch, on as many threads as torch is set to.

    backend = TorchBackend(StableDiffusion.load("my-model"))
    detector = Detector.load("my-bundle", backend=backend, uncalibrated="score")
    """

    def __init__(
        self,
        model: Model,
        *,
        precision: Precision = "float32",
        device: str = "cpu",
        compiler: str | None = None,
        cuda_graphs: bool = True,
        batches: Sequence[int] = (1, 8, 32),
    ) -> None:
        """Copy a model to a device.

        Args:
            model: In float32; left as it is.
            precision: What layers compute in; differences and norms are float32 in any case.
            device: "cpu", "cuda", "cuda:1", ...
            compiler: Backend of `torch.compile`, such as "inductor"; None runs eagerly.
            cuda_graphs: On a GPU, record what was compiled as CUDA graphs, and replay them.
            batches: On a GPU, how many prompts what is compiled takes at once. It is compiled for
                each of these sizes when the first call of it comes; calls are cut or padded to
                them. PyTorch would compile the second size that it sees for all to come, with open
                shapes: slower, and a CUDA graph for each of them.

        Raises:
            BackendUnavailable: torch cannot use the device.
            InputError: a size is out of 1..256.
        """
        super().__init__()
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: built without CUDA
            raise BackendUnavailable(
                f"PyTorch {torch.__version__} cannot use {device!r}: {str(error).rstrip('.')}. "
                "Leave --device out (in Python device='cpu'), or install a build of "
                "PyTorch for this device."
            ) from None
        self._weights = model.weights_sha256()
        self._model = model.to(getattr(torch, precision))
        self._device = torch.device(device)
        for part in self._model.parts.values():
            part.to(device)
            if self._device.type == "cuda":  # tensor cores copy what lies otherwise
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiler = compiler
        self.cuts_calls = self._device.type == "cuda"
        self._cuda_graphs = cuda_graphs
        self._profiles = tuple(Profile((size, size)) for size in batches)
        name = "torch" if compiler is None else f"torch-{compiler}"
        self.name = name if precision == "float32" else f"{name}:{precision}"

    @property
    def model(self) -> Model:
        """The copy that it runs, for what looks inside a model."""
        return self._model

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        """The module of a graph.

        Raises:
            BundleError: it was exported from other weights.
        """
        record = bundle.manifest.model
        if why := self._model.told_as(record).unlike(record, bundle.path, self._weights):
            raise BundleError(why)
        return self._engine(bundle, graph)

    @property
    def _fixes_sizes(self) -> bool:
        return self._compiler is not None and self._device.type == "cuda"

    @property
    def _keeps_cuda_graphs(self) -> bool:
        return self._cuda_graphs and self._fixes_sizes

    @torch.inference_mode()
    def _engine(self, bundle: Bundle, graph: str) -> Engine:
        module = self._module(bundle, graph).eval()
        forward: Callable[..., tuple[Tensor, ...]] = module
        if self._compiler is not None:
            _keep_kernels_private(self._compiler)
            forward = torch.compile(
                module, backend=self._compiler, dynamic=False if self._fixes_sizes else None
            )
        run = self._run(lambda named: forward(*_arguments(module, named)))
        # a module with taps keeps features while it runs
        one_at_a_time = threading.Lock() if bundle.manifest.taps else nullcontext()

        @torch.inference_mode()
        def whole(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            given = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in inputs.items()}
            try:
                with one_at_a_time:
                    found = run(given)
            except RuntimeError as error:  # out of memory, for one
                raise BackendError(f"PyTorch failed: {error}") from None
            named = dict(zip(module.outputs, found, strict=True))
            return [named[name].numpy() for name in outputs]

        def cut(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            leading = {name: _most(name, self._profiles) for name in inputs}
            return run_covered(
                lambda _, part, names: whole(part, names), inputs, outputs, self._profiles, leading
            )

        return cut if self._fixes_sizes else whole

    def _run(self, compute: Run) -> Run:
        """From the host's tensors to the host's: replayed, or launched one by one."""
        if self._keeps_cuda_graphs:
            replayed = Replayed(compute, self._device)
            self.closing.callback(replayed.close)
            return replayed

        def launched(named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
            here = {name: each.to(self._device) for name, each in named.items()}
            return tuple(each.cpu() for each in compute(here))

        return launched

    def _module(self, bundle: Bundle, graph: str) -> Graph:
        if graph == "text_encoder":
            return TextEncoderGraph(self._model)
        noises, manifest = torch.from_numpy(bundle.noise_bank()), bundle.manifest
        model = self._model.told_as(manifest.model).resized(manifest.noise_bank.shape[2:])
        if graph == "step":
            return StepGraph(model, manifest.taps).to(self._device)
        stop = graph == "taps"
        taps = () if "taps" in manifest.graphs and not stop else manifest.taps
        screen = ScreenGraph(model, noises, manifest.timestep, taps, stop=stop)
        return screen.to(self._device)


def _most(name: str, profiles: Sequence[Profile]) -> int:
    """Rows of an input that a call takes at most: the empty prompt's embeddings are of one."""
    one = {*EMPTY.values(), "timestep", NOISES}
    return 1 if name in one else max(profile.most for profile in profiles)


def _arguments(graph: Graph, tensors: Mapping[str, Tensor]) -> Inputs:
    """The graph's inputs, by name, as `forward` takes them."""
    if isinstance(graph, ScreenGraph) and graph.model.encodes_apart:
        return tuple(tensors[name] for name in graph.model.embeddings), tensors[NOISES]
    if not isinstance(graph, StepGraph):
        return tuple(tensors[name] for name in graph.inputs)
    names = graph.model.embeddings
    embeds = tuple(tensors[name] for name in names)
    empty = tuple(tensors[EMPTY[name]] for name in names)
    return embeds, empty, tensors["latents"], tensors["timestep"]


def _keep_kernels_private(compiler: str) -> None:
    """PyTorch keeps programs and pickles in /tmp, in a folder that anybody could have made."""
    if compiler == "inductor" and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder("inductor"))

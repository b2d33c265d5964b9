"""What runs on a GPU, recorded as CUDA graphs: one launch a call, whatever PyTorch would check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Replayed", "Run"]

Named = Mapping[str, Tensor]
Run = Callable[[Named], tuple[Tensor, ...]]
_WARMUPS = 3  # compiles, lets libraries choose their algorithms, and once as it will be recorded


@dataclass(frozen=True)
class _Recording:
    """A run for one shape of its inputs: its buffers, on the GPU and pinned beside it."""

    graph: torch.cuda.CUDAGraph
    given: Named
    here: Named
    found: tuple[Tensor, ...]
    out: tuple[Tensor, ...]


class Replayed:
    """Records a run for each shape of inputs that comes, and replays it. One call at a time.

    All recordings share their memory, which none needs once its results are copied out.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        """Nothing is recorded yet.

        Args:
            run: From inputs by name to outputs, all on the device; launches the same for the same
                shapes, and waits for nothing.
            device: A GPU.
        """
        self._run, self._device = run, device
        self._recordings: dict[object, _Recording] = {}
        self._lock = threading.Lock()

    def __call__(self, inputs: Named) -> tuple[Tensor, ...]:
        """Outputs, of inputs; both in the host's memory.

        Raises:
            RuntimeError: PyTorch's: out of memory, or what runs cannot be recorded.
        """
        shapes = tuple((name, each.shape, each.dtype) for name, each in inputs.items())
        with self._lock, torch.cuda.device(self._device):
            recording = self._recordings.get(shapes)
            if recording is None:
                recording = self._recordings[shapes] = self._record(inputs)
            return self._replay(recording, inputs)

    def close(self) -> None:
        """Give the recordings' memory back, after a call that runs."""
        with self._lock:
            self._recordings.clear()

    def _record(self, inputs: Named) -> _Recording:
        given = {name: _pinned(each) for name, each in inputs.items()}
        here = {name: each.to(self._device, copy=True) for name, each in inputs.items()}
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                self._run(here)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next((each.graph.pool() for each in self._recordings.values()), None)
        # other threads may go on with what they do on the GPU
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            found = self._run(here)
        return _Recording(graph, given, here, found, tuple(map(_pinned, found)))

    def _replay(self, recording: _Recording, inputs: Named) -> tuple[Tensor, ...]:
        for name, each in inputs.items():
            recording.here[name].copy_(recording.given[name].copy_(each), non_blocking=True)
        recording.graph.replay()
        for out, each in zip(recording.out, recording.found, strict=True):
            out.copy_(each, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return tuple(each.clone() for each in recording.out)


def _pinned(like: Tensor) -> Tensor:
    """A buffer in the host's memory that the GPU copies from and to by itself."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

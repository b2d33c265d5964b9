"""A call that is timed, and the graph of a row on its backend, in a process without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from mnemoscope_runtime.backends import open_backend

from ..alone import peak

__all__ = ["GRAPH", "INPUTS", "SCREEN", "WEIGHTS", "Call", "call_graph", "timed"]

SCREEN = "screen"  # of the rows the one whose graph runs to the end
GRAPH, WEIGHTS, INPUTS = "screen.onnx", "model.weights", "inputs.npz"
_BEFORE = 2  # calls in which ONNX Runtime takes gigabytes, to keep them: a third and more of either


@dataclass(frozen=True)
class Call:
    """One call of a process that did little else.

    Attributes:
        seconds: Processor time.
        peak: The most memory that the process held, loading included, in bytes.
        measured: The magnitude, or how far the prompt moves the layer at which the graph stops.
    """

    seconds: float
    peak: int
    measured: float


def timed(run: Callable[[], float]) -> Call:
    """Time a call."""
    start = time.process_time()
    measured = run()
    return Call(time.process_time() - start, peak(), measured)


def call_graph(folder: Path, kind: str, backend: str) -> Call:
    """Time the third call of a graph, on one thread.

    Args:
        folder: Where `model.save` put it.
        kind: "screen", or the layer that it stops at.
        backend: As `open_backend` is told.
    """
    inputs = dict(np.load(folder / INPUTS))
    outputs = ("magnitude" if kind == SCREEN else "taps",)
    with open_backend(backend, threads=1) as opened:
        engine = opened.make_engine(_Graphs(folder), SCREEN)  # type: ignore[arg-type]

        def run() -> float:
            [found] = engine(inputs, outputs)
            return float(found.item())

        for _ in range(_BEFORE):
            run()
        return timed(run)


@dataclass(frozen=True)
class _Graphs:
    """What backends ask of a bundle, for a graph that no gate has compared with PyTorch."""

    path: Path
    manifest: ClassVar[Any] = SimpleNamespace(graphs={SCREEN: GRAPH}, precision="float32")

    def data_files(self) -> list[str]:
        return [WEIGHTS]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

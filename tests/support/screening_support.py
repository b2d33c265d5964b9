"""What the tests of screening share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope_runtime import BACKENDS, Backend, Bundle, Engine, Screener, open_backend
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.predictor import PAIRS

Array = NDArray[np.float32]
Change = Callable[[str, list[Array]], list[Array]]
CPU = tuple(name for name, spec in BACKENDS.items() if "device" not in spec.takes)
PROMPTS = ["a photo of a cat", "icon of rocket", "", "日本", "an old master, oil on canvas " * 9]
MANY = [f"prompt number {number}" for number in range(2 * PAIRS + 3)]


class Changed(Backend):
    """Another backend, the outputs of whose engines are changed."""

    name = "changed"

    def __init__(self, backend: Backend, change: Change = lambda _, values: values) -> None:
        super().__init__()
        self.backend, self.change = backend, change
        self.loaded: list[str] = []
        self.closed = 0

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        self.loaded.append(graph)
        engine = self.backend.load(bundle, graph)

        def run(inputs: Arrays, outputs: tuple[str, ...]) -> list[Array]:
            return self.change(graph, engine(inputs, outputs))

        return run

    def close(self) -> None:
        self.closed += 1
        super().close()
        self.backend.close()


@pytest.fixture(scope="module")
def screener(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, threads=1) as screener:
        yield screener


def changed(bundle_dir: Path, change: Change) -> Screener:
    return Screener.open(
        bundle_dir, backend=Changed(open_backend("onnxruntime", threads=1), change)
    )

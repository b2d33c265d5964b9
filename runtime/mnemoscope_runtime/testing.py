"""A backend without engines, to test what is built on Mnemoscope."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .backends import Arrays, Backend, Engine
from .bundle import Bundle
from .errors import BackendError

__all__ = ["FakeBackend"]

Ids = NDArray[np.int64]


def _from_ids(ids: Ids) -> float:
    """A magnitude in 0..1 that depends on the prompt and nothing else."""
    return zlib.crc32(ids.astype("<i8").tobytes()) / 2**32


class FakeBackend(Backend):
    """Answers `screen` with a function of the token ids; has no other graph.

    detector = Detector.load(backend=FakeBackend(lambda ids: 0.5), uncalibrated="score")
    """

    name = "fake"

    def __init__(self, magnitude: Callable[[Ids], float] = _from_ids) -> None:
        super().__init__()
        self._magnitude = magnitude
        self.calls = 0

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:  # noqa: ARG002
        """An engine for "screen"."""
        if graph != "screen":
            raise BackendError(
                f"FakeBackend answers the graph 'screen' alone, not {graph!r}: give it one step of "
                "the magnitude to measure."
            )
        return self._run

    def _run(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        assert outputs == ("magnitude",)
        self.calls += 1
        column = [self._magnitude(ids) for ids in inputs["input_ids"]]
        noises = len(inputs["noise_index"])
        return [np.tile(np.array(column, np.float32)[:, None], (1, noises))]

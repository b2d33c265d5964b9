"""What the three trainings share: batches, learning rate, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .images import Pixels


def to_tensor(images: Pixels) -> Tensor:
    """uint8 [B, H, W, 3] in 0..255 -> float [B, 3, H, W] in -1..1."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1


def cosine(step: int, steps: int, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine down to zero: the factor on the learning rate."""
    rise = min(1.0, (step + 1) / warmup)
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def shuffled(count: int, batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices; every epoch is a new permutation."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


class Log:
    """Writes one JSON line now and then, to the terminal and to a file."""

    def __init__(self, path: Path, every: int = 100) -> None:
        self._path, self._every = path, every
        self._start = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0
        path.write_text("")

    def __call__(self, step: int, **values: Tensor | float) -> None:
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        if (step + 1) % self._every == 0:
            self.write(step + 1, {name: total / self._count for name, total in self._sums.items()})
            self._sums, self._count = {}, 0

    def write(self, step: int, values: dict[str, float]) -> None:
        rounded = {name: round(value, 5) for name, value in values.items()}
        seconds = round(time.monotonic() - self._start)
        line = json.dumps({"step": step, "seconds": seconds, **rounded})
        print(line, flush=True)
        with self._path.open("a") as log:
            log.write(line + "\n")

"""An artist without a model: it paints plain colours, and compares them by their angle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from captioned_support import picture
from PIL import Image

from mnemoscope.audit.confirming.artist import Artist, Halves
from mnemoscope_runtime.manifest import ModelRecord


@dataclass
class Colours:
    """A copy descriptor: pictures are as alike as their mean colours."""

    name: str = "colours"
    copied_above: float | None = 0.99
    duplicate_above: float | None = 0.995

    def describe(self, images: Sequence[Image.Image]) -> Any:
        means = [np.asarray(each.convert("RGB"), np.float32).mean((0, 1)) for each in images]
        vectors = np.stack(means) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class FakeArtist(Artist):
    """Paints captions as told, one colour for each seed; others in grey."""

    paints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, paints: Mapping[str, Sequence[str]], above: float | None = 0.99) -> FakeArtist:
        return cls(cast(Any, None), Colours(copied_above=above), paints=paints)

    def identity(self) -> str:
        return "a fake"

    def require(self, record: ModelRecord) -> None:
        self.calls.append(f"require {record.family}")

    def describe(self, images: Sequence[Image.Image]) -> Halves:
        self.calls.append(f"describe {len(images)}")
        found = self.descriptor.describe(images)
        return np.stack([found, found], 1).astype(np.float16)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[Image.Image]]:
        self.calls.extend(f"draw {prompt}" for prompt in prompts)
        return [
            [Image.new("RGB", (300, 200), self.paints.get(p, ["grey"] * 9)[seed]) for seed in seeds]
            for p in prompts
        ]


def put(folder: Path, **captions: tuple[str, str]) -> Path:
    """A folder of pictures: name to caption and colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (caption, colour) in captions.items():
        (folder / f"{name}.png").write_bytes(picture(colour))
        (folder / f"{name}.txt").write_text(caption)
    return folder

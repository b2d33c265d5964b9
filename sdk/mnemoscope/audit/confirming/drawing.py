"""The stage of an audit that draws captions."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..stages import Stage
from .artist import Artist, Halves, Opens, as_halves, opened_as

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Drawings", "collect", "drawing", "small"]

_BATCH = 8
_SIDE, _QUALITY = 192, 80  # of what is kept to be shown


class Drawings(msgspec.Struct, array_like=True, frozen=True):
    """What was drawn of a caption.

    Attributes:
        vectors: One of each drawing, float16. # [K D]
        shown: The drawings, scaled down, as WebP. # [K]
    """

    vectors: bytes
    shown: list[bytes]


def drawing(
    prompts: Sequence[str], seeds: Sequence[int], opens: Opens, identity: str
) -> Stage[str, Drawings]:
    """The stage.

    Args:
        prompts: What to draw.
        seeds: From which; the same for all.
        opens: Opens what draws; picklable if other processes are to.
        identity: What it has to be.
    """
    return Stage(
        name="draw",
        identity=msgspec.json.encode([identity, list(seeds), list(prompts)]),
        unit="drawn caption",
        count=len(prompts),
        size=_BATCH,
        items=lambda: iter(prompts),
        result=Drawings,
        open=partial(_open, opens, identity, tuple(seeds)),
        doing="drawing captions",
    )


def collect(
    batches: Iterator[tuple[int, list[Drawings]]], count: int, seeds: int
) -> tuple[Halves, list[list[bytes]]]:
    """Vectors of all drawings in the order of prompts, and what is shown. # [N, K, D], [N, K]"""
    done = {
        number * _BATCH + at: each for number, found in batches for at, each in enumerate(found)
    }
    rows = [np.frombuffer(done[at].vectors, np.float16).reshape(seeds, -1) for at in range(count)]
    vectors = np.stack(rows) if rows else np.zeros((0, seeds, 0), np.float16)
    return vectors, [done[at].shown for at in range(count)]


@contextmanager
def _open(
    opens: Opens, identity: str, seeds: Sequence[int]
) -> Iterator[Callable[[list[str]], list[Drawings]]]:
    with opened_as(opens, identity) as artist:
        yield partial(_draw, artist, seeds)


def _draw(artist: Artist, seeds: Sequence[int], prompts: list[str]) -> list[Drawings]:
    return [
        Drawings(as_halves(artist.descriptor.describe(images)).tobytes(), list(map(small, images)))
        for images in artist.draw(prompts, seeds)
    ]


def small(image: Image) -> bytes:
    """A picture to be shown: no side longer than 192 pixels, as WebP."""
    image = image.copy()
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()

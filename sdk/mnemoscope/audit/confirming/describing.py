"""The stage of an audit that describes every picture of the set, to compare drawings with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...captioned import Broken, PictureReader, Spot
from ..stages import Stage
from .artist import Artist, Halves, Opens, opened_as

__all__ = ["Described", "Pictures", "collect", "describing"]

_BATCH = 32


class Described(msgspec.Struct, array_like=True, frozen=True):
    """What a picture is like.

    Attributes:
        vectors: Its two vectors (`Artist.describe`), float16; nothing if it cannot be read. # [2 D]
        error: Why it cannot be read, or nothing.
    """

    vectors: bytes
    error: str


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a set.

    Attributes:
        vectors: Of those that could be read, as they are and as the VAE renders them. # [P, 2, D]
        errors: Why each of all could not be, or nothing. # [picture]
        place: Where in `vectors` each of all is; -1 for those that could not be read. # [picture]
    """

    vectors: Halves
    errors: Sequence[str]
    place: NDArray[np.int64]


def describing(
    spots: Callable[[], Iterator[Spot]], count: int, opens: Opens, identity: str
) -> Stage[Spot, Described]:
    """The stage.

    Args:
        spots: Where the pictures lie, in order, from the beginning at every call.
        count: How many.
        opens: Opens what describes; picklable if other processes are to.
        identity: What it has to be.
    """
    return Stage(
        name="describe",
        identity=identity.encode(),
        unit="picture",
        count=count,
        size=_BATCH,
        items=spots,
        result=Described,
        open=partial(_open, opens, identity),
        doing="describing pictures",
    )


def collect(batches: Iterator[tuple[int, list[Described]]], count: int) -> Pictures:
    """The results of all batches, in the order of pictures."""
    errors, vectors = [""] * count, np.zeros((count, 2, 0), np.float16)
    readable = np.zeros(count, np.bool_)
    for number, found in batches:
        for at, each in enumerate(found, number * _BATCH):
            errors[at] = each.error
            if each.vectors:
                vector = np.frombuffer(each.vectors, np.float16).reshape(2, -1)
                if not vectors.shape[2]:
                    vectors = np.zeros((count, *vector.shape), np.float16)
                vectors[at], readable[at] = vector, True
    place = np.where(readable, np.cumsum(readable) - 1, -1)
    return Pictures(vectors if readable.all() else vectors[readable], errors, place)


@contextmanager
def _open(opens: Opens, identity: str) -> Iterator[Callable[[list[Spot]], list[Described]]]:
    with opened_as(opens, identity) as artist, PictureReader() as reader:
        yield partial(_describe, artist, reader)


def _describe(artist: Artist, reader: PictureReader, spots: list[Spot]) -> list[Described]:
    found = [reader.read(spot) for spot in spots]
    images = [each for each in found if not isinstance(each, Broken)]
    vectors = iter(artist.describe(images) if images else ())
    return [
        Described(b"", each.reason)
        if isinstance(each, Broken)
        else Described(next(vectors).tobytes(), "")
        for each in found
    ]

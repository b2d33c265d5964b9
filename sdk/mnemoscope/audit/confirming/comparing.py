"""Drawings against the pictures of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...duplicates import nearest
from .artist import Halves
from .findings import Cosines

__all__ = ["Compared", "compare", "unrelated"]

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Compared:
    """What drawings of captions are like.

    Attributes:
        own: Each drawing with each picture of its own, for each caption. # [caption][own, K]
        other: With the nearest other picture; -1 if there is none. # [N, K]
        nearest: Which that is; -1 likewise. # [N, K]
    """

    own: Sequence[Cosines]
    other: Cosines
    nearest: Places


def compare(drawn: Halves, pictures: Halves, owned: Sequence[Places]) -> Compared:
    """Compare drawings with their own pictures and with all others.

    Pictures are taken as they are and as the model's VAE renders them, whichever a drawing is more
    like.

    Args:
        drawn: # [N, K, D]
        pictures: # [P, 2, D]
        owned: Which pictures are each caption's own.

    Raises:
        NumericsError: a vector is NaN, or not of length 1.
        BackendUnavailable: faiss is not installed.
    """
    count, seeds = drawn.shape[:2]
    own = [_cosines(drawn[n], pictures[each]) for n, each in enumerate(owned)]
    other = np.full((count, seeds), -1, np.float32)
    where = np.full((count, seeds), -1, np.int64)
    if not count:
        return Compared(own, other, where)
    k = 1 + max(map(len, owned))
    for way in range(pictures.shape[1]):
        found = nearest(drawn.reshape(count * seeds, -1), pictures[:, way], k)
        cosines = found.similarity.reshape(count, seeds, -1)
        rows = found.row.reshape(count, seeds, -1)
        for n, each in enumerate(owned):
            cosine = np.where(np.isin(rows[n], each), -1, cosines[n])
            best = cosine.argmax(1)[:, None]
            value = np.take_along_axis(cosine, best, 1)[:, 0]
            better = value > other[n]
            other[n] = np.where(better, value, other[n])
            where[n] = np.where(better, np.take_along_axis(rows[n], best, 1)[:, 0], where[n])
    return Compared(own, other, where)


def unrelated(drawn: Halves, pictures: Halves, owned: Sequence[Places]) -> Cosines:
    """The highest cosine of each caption's drawings with the pictures of each other. # [pair]

    Args:
        drawn: # [N, K, D]
        pictures: # [P, 2, D]
        owned: As of `compare`.
    """
    theirs: Mapping[int, Halves] = {n: pictures[each] for n, each in enumerate(owned)}
    found = [
        _cosines(drawn[n], theirs[m]).max()
        for n in range(len(owned))
        for m in range(len(owned))
        if n != m
    ]
    return np.asarray(found, np.float32)


def _cosines(drawn: Halves, pictures: Halves) -> Cosines:
    """Of each picture with each drawing, as it is or rendered. # [K, D], [P, 2, D] -> [P, K]"""
    both = pictures.astype(np.float32) @ drawn.astype(np.float32).T
    found: Cosines = both.max(1).clip(-1, 1)
    return found

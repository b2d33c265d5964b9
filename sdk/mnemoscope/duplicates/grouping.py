"""Which vectors of a set are nearly the same: each group is one that is kept, and what is like it.

In order, each vector joins the kept one that is nearest if it is near enough, and is kept itself
otherwise. So whatever is dropped is like the one that is kept in its place, no two that are kept
are alike, and no chain of small steps joins what is not alike. Results take one number a vector.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

from .neighbours import Vectors, checked, import_faiss

__all__ = ["EXACT", "kept_rows"]

EXACT = 100_000  # vectors that are compared with all that are kept: minutes; the square of it
_BLOCK = 1024  # vectors at a time
_TRAINED, _ROUNDS = 40, 10  # vectors for each list of the index, rounds of k-means
_LISTS, _LOOKED = 4, 32  # lists for each square root of the set, and how many are looked through


def kept_rows(vectors: Vectors, similarity: float, *, exact: int = EXACT) -> NDArray[np.int64]:
    """The row that is kept in place of each: its own for what is kept.

    Sets of more than `exact` vectors are searched by an inverted file, which may overlook one that
    is kept: what is one group is two then.

    Args:
        vectors: Unit vectors, float16 or float32; they may be a memory map. # [N, D]
        similarity: The cosine above which two are alike, above 0 and below 1.
        exact: Up to how many vectors nothing is overlooked.

    Returns:
        No higher than its own row, of each. # [N]

    Raises:
        InputError: similarity or the shape of the vectors cannot be used.
        NumericsError: a vector is NaN, or not of length 1.
        BackendUnavailable: faiss is not installed.
    """
    if not 0 < similarity < 1:
        raise InputError(f"A similarity lies between 0 and 1, {similarity} does not.")
    if vectors.ndim != 2:
        raise InputError(f"Vectors are [N, D], not of the shape {vectors.shape}.")
    count = len(vectors)
    index = _exact(vectors.shape[1]) if count <= exact else _inverted(vectors)
    kept = np.arange(count)
    leaders = np.zeros(0, np.int64)  # the rows that the index holds
    for first in range(0, count, _BLOCK):
        block = checked(vectors[first : first + _BLOCK], first)
        rows = np.arange(first, first + len(block))
        if len(leaders):
            near = leaders[index.search(block, 1)[1][:, 0]]
            cosines = np.einsum("nd,nd->n", block, vectors[near].astype(np.float32))
            kept[rows] = np.where(cosines > similarity, near, rows)
        new = rows[kept[rows] == rows]
        kept[new] = new[_first_alike(block[new - first], similarity)]
        new = new[kept[new] == new]
        index.add(block[new - first])
        leaders = np.append(leaders, new)
    return kept


def _first_alike(vectors: NDArray[np.float32], similarity: float) -> NDArray[np.int64]:
    """The first that each is like and that is like none before it. # [N, D] -> [N]"""
    alike = vectors @ vectors.T > similarity
    kept = np.arange(len(vectors))
    free = np.ones(len(vectors), np.bool_)
    for row in np.flatnonzero(np.triu(alike, 1).any(1)):
        if free[row]:
            joined = alike[row] & free
            joined[: row + 1] = False
            kept[joined] = row
            free &= ~joined
    return kept


def _exact(width: int) -> Any:
    return import_faiss().IndexFlatIP(width)


def _inverted(vectors: Vectors) -> Any:
    """An index that keeps float16, in lists around centres; the same for the same vectors."""
    faiss = import_faiss()
    count, width = vectors.shape
    lists = min(count, _LISTS * math.isqrt(count))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width),
        width,
        lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,
    )
    index.cp.niter, index.nprobe = _ROUNDS, _LOOKED
    sample = np.linspace(0, count - 1, min(count, _TRAINED * lists), dtype=np.int64)
    index.train(checked(vectors[sample]))
    return index

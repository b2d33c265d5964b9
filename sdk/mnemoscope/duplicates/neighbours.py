"""The nearest neighbours of some vectors among many, by comparing each with all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, InputError, NumericsError
from mnemoscope_runtime.wording import pip_install

__all__ = ["Nearest", "Vectors", "blocks", "checked", "import_faiss", "nearest"]

Vectors = NDArray[np.floating[Any]]
_BLOCK = 2**15  # vectors that are float32 at a time, which bounds memory
_ROUNDING = 0.01  # of a length of 1, in float16


@dataclass(frozen=True, eq=False)
class Nearest:
    """The k nearest neighbours of Q queries, the nearest first.

    Attributes:
        similarity: Cosines, in -1..1. # [Q, k]
        row: Where they stand among the vectors. # [Q, k]
    """

    similarity: NDArray[np.float32]
    row: NDArray[np.int64]


def nearest(queries: Vectors, vectors: Vectors, k: int = 1) -> Nearest:
    """The vectors with the highest cosines; of equal ones any.

    Each query is compared with every vector: nothing is approximate. With 512 numbers a query takes
    some 15 ms of processor time among a million vectors.

    Args:
        queries: Unit vectors, float16 or float32. # [Q, D]
        vectors: Likewise, read block by block: they may be a memory map. # [N, D]
        k: How many to find, at least 1; all N if there are fewer.

    Raises:
        InputError: shapes or numbers do not fit, or there are no vectors.
        NumericsError: a vector is NaN, or not of length 1.
        BackendUnavailable: faiss is not installed.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InputError(f"k is a whole number of at least 1, {k!r} is none.")
    if queries.ndim != 2 or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise InputError(
            f"Queries of the shape {queries.shape} and vectors of {vectors.shape} do not compare. "
            "Give [Q, D] and [N, D], by the same descriptor."
        )
    if not len(vectors):
        raise InputError("There are no vectors to compare with. Give at least one.")
    faiss = import_faiss()
    asked = checked(queries)
    similarity = np.zeros((len(asked), 0), np.float32)
    row = np.zeros((len(asked), 0), np.int64)
    for first, block in blocks(vectors):
        found, at = faiss.knn(asked, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        similarity = np.concatenate([similarity, found], 1)
        row = np.concatenate([row, at + first], 1)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        similarity = np.take_along_axis(similarity, best, 1)
        row = np.take_along_axis(row, best, 1)
    return Nearest(similarity.clip(-1, 1), row)


def blocks(vectors: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All vectors, some at a time in float32, and the row of the first of them.

    Raises:
        NumericsError: a vector is NaN, or not of length 1.
    """
    for first in range(0, len(vectors), _BLOCK):
        yield first, checked(vectors[first : first + _BLOCK], first)


def checked(vectors: Vectors, first: int = 0) -> NDArray[np.float32]:
    """Vectors in float32, one after the other in memory. # [N, D]

    Args:
        vectors: # [N, D]
        first: The row of the first, for messages.

    Raises:
        NumericsError: one is NaN, or not of length 1.
    """
    found = np.ascontiguousarray(vectors, np.float32)
    wrong = ~(np.abs(np.einsum("nd,nd->n", found, found) - 1) < 2 * _ROUNDING)
    if wrong.any():
        raise NumericsError(
            f"Vector {int(wrong.argmax()) + first:,} is NaN, infinite or not of length 1: that "
            "says nothing of its picture. Describe the pictures again, by a descriptor in float32."
        )
    return found


def import_faiss() -> Any:
    """The library.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise BackendUnavailable(
            f"Comparing a set with itself needs faiss: {error}. Install it with "
            f"{pip_install('images')}."
        ) from None
    return faiss

"""Nearest neighbours, against NumPy that compares all with all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope import BackendUnavailable, InputError, NumericsError
from mnemoscope.duplicates import nearest, neighbours


def unit(count: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize(("count", "queries", "k"), [(1, 3, 1), (7, 1, 7), (500, 40, 5)])
def test_as_by_brute_force(
    monkeypatch: pytest.MonkeyPatch, kind: Any, count: int, queries: int, k: int
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 64)  # several, and a rest
    vectors, asked = unit(count, 24).astype(kind), unit(queries, 24, 1).astype(kind)
    found = nearest(asked, vectors, k)
    cosines = asked.astype(np.float64) @ vectors.astype(np.float64).T
    expected = np.argsort(-cosines, axis=1)[:, :k]
    assert found.row.tolist() == expected.tolist()
    assert found.row.dtype == np.int64
    assert found.similarity.dtype == np.float32
    ordered = np.take_along_axis(cosines, expected, 1)
    assert found.similarity == pytest.approx(ordered, abs=24 * 2**-23)  # a sum of 24 in float32


def test_a_set_finds_itself_and_then_what_was_changed_a_little() -> None:
    vectors = unit(300, 64)
    noise = unit(300, 64, 1)
    changed = 0.95 * vectors + 0.1 * noise
    both = np.concatenate([vectors, changed / np.linalg.norm(changed, axis=1, keepdims=True)])
    found = nearest(both, both, 2)
    assert found.row[:, 0].tolist() == list(range(600))
    assert found.row[:, 1].tolist() == [*range(300, 600), *range(300)]
    assert (found.similarity <= 1).all()


def test_fewer_vectors_than_are_asked_for() -> None:
    assert nearest(unit(2, 8), unit(3, 8), 10).row.shape == (2, 3)


def test_no_queries() -> None:
    assert nearest(unit(3, 8)[:0], unit(3, 8), 2).row.shape == (0, 2)


def test_vectors_in_a_file(tmp_path: Path) -> None:
    vectors = unit(100, 16).astype(np.float16)
    np.save(tmp_path / "a.npy", vectors)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert nearest(vectors, mapped).row.ravel().tolist() == list(range(100))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 2.0])
@pytest.mark.parametrize("whose", ["queries", "vectors"])
def test_a_vector_that_says_nothing(bad: float, whose: str) -> None:
    good, broken = unit(5, 8), unit(5, 8)
    broken[3] *= bad
    with pytest.raises(NumericsError, match="Vector 3 "):
        nearest(*((broken, good) if whose == "queries" else (good, broken)))


def test_the_row_of_a_bad_vector_in_a_later_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 16)
    broken = unit(50, 8)
    broken[37] = 0
    with pytest.raises(NumericsError, match="Vector 37 "):
        nearest(unit(1, 8), broken)


@pytest.mark.parametrize(
    ("queries", "vectors", "k"),
    [
        (unit(1, 8), unit(1, 9), 1),
        (unit(1, 8)[0], unit(1, 8), 1),
        (unit(1, 8), unit(1, 8)[:0], 1),
        (unit(1, 8), unit(1, 8), 0),
        (unit(1, 8), unit(1, 8), True),
        (unit(1, 8), unit(1, 8), 1.0),
    ],
)
def test_what_does_not_compare(queries: Any, vectors: Any, k: Any) -> None:
    with pytest.raises(InputError):
        nearest(queries, vectors, k)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[images\]"):
        nearest(unit(1, 8), unit(1, 8))

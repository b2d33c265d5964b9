"""Groups of what is alike, against what defines them: all compared with all, by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnemoscope import InputError, NumericsError
from mnemoscope.duplicates import grouping, kept_rows

LIMIT = 0.7


def spread(places: int, rows: int, seed: int, noise: float = 0.3) -> NDArray[np.float32]:
    """Rows around a few places, in some order; neighbours are alike more or less."""
    dice = np.random.default_rng(seed)
    found = dice.standard_normal((places, 16))[dice.integers(0, places, rows)]
    found = found + noise * dice.standard_normal(found.shape)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(unit, np.float32)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 30), st.integers(0, 120), st.integers(0, 999), st.sampled_from([1, 7, 64, 1024])
)
def test_what_defines_groups(places: int, rows: int, seed: int, block: int) -> None:
    vectors = spread(places, rows, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_BLOCK", block)
        kept = kept_rows(vectors, LIMIT)
    cosines = vectors.astype(np.float64) @ vectors.T
    leaders = np.flatnonzero(kept == np.arange(rows))
    assert (kept <= np.arange(rows)).all()
    assert set(kept) == set(leaders)  # what stands for others is kept itself
    between = cosines[np.ix_(leaders, leaders)]
    assert (between - 2 * np.eye(len(leaders)) <= LIMIT + 1e-6).all()  # no two kept are alike
    dropped = np.flatnonzero(kept != np.arange(rows))
    assert (cosines[dropped, kept[dropped]] > LIMIT - 1e-6).all()  # and all else is like one


def test_the_nearest_of_those_that_are_kept() -> None:
    angles = np.deg2rad([0, 50, 30, 40, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_BLOCK", 2)
        assert kept_rows(vectors, np.cos(np.deg2rad(35))).tolist() == [0, 1, 1, 1, 0]


def test_a_chain_of_small_steps_is_no_group() -> None:
    angles = np.deg2rad(np.arange(0, 90, 10))  # each like the next two
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    kept = kept_rows(vectors, float(np.cos(np.deg2rad(25))))
    assert kept.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_repetitions() -> None:
    vectors = np.repeat(spread(5, 5, 0, noise=0), 300, 0)
    places = np.unique(vectors, axis=0)
    kept = kept_rows(vectors.astype(np.float16), 0.99)
    assert len(np.unique(kept)) == len(places)


def test_the_inverted_file_finds_what_is_near(tmp_path: Path) -> None:
    """2,000 rows, a fifth of them near copies of others; from a file, in float16, twice."""
    dice = np.random.default_rng(0)
    vectors = dice.standard_normal((2000, 32))
    vectors[1600:] = vectors[:400] + 0.3 * dice.standard_normal((400, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(tmp_path / "a.npy", vectors.astype(np.float16))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    exact = kept_rows(mapped, 0.85)
    found = kept_rows(mapped, 0.85, exact=0)
    assert (exact != np.arange(2000)).sum() > 390
    assert (found == exact).mean() > 0.99
    assert (found == kept_rows(mapped, 0.85, exact=0)).all()


def test_nothing_to_group() -> None:
    assert kept_rows(np.zeros((0, 8), np.float32), LIMIT).tolist() == []


@pytest.mark.parametrize("similarity", [0.0, 1.0, -0.5, float("nan")])
def test_a_similarity_that_is_none(similarity: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        kept_rows(spread(1, 2, 0), similarity)


def test_vectors_that_are_none() -> None:
    with pytest.raises(InputError, match="shape"):
        kept_rows(spread(1, 2, 0)[0], LIMIT)
    broken = spread(5, 2000, 0)
    broken[1500] = np.nan
    with pytest.raises(NumericsError, match="Vector 1,500 "):
        kept_rows(broken, LIMIT)

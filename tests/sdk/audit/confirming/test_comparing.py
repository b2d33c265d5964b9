"""Drawings against the pictures of a set, against all cosines written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope.audit.confirming.comparing import compare, unrelated

DICE = np.random.default_rng(0)


def unit(*shape: int) -> NDArray[np.float16]:
    found = DICE.standard_normal(shape)
    return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(np.float16)


DRAWN, PICTURES = unit(4, 3, 16), unit(20, 2, 16)
OWNED = [np.array([2]), np.array([0, 7, 9]), np.array([19]), np.array([2, 3])]
# [caption, seed, picture], as it is or rendered
ALL = np.einsum("nkd,pwd->nkpw", DRAWN.astype(np.float64), PICTURES.astype(np.float64)).max(3)


def test_as_written_out() -> None:
    found = compare(DRAWN, PICTURES, OWNED)
    for n, own in enumerate(OWNED):
        assert found.own[n] == pytest.approx(ALL[n][:, own].T, abs=1e-6)
        others = ALL[n].copy()
        others[:, own] = -2
        assert found.other[n] == pytest.approx(others.max(1), abs=1e-6)
        assert found.nearest[n].tolist() == others.argmax(1).tolist()


def test_unrelated_pairs() -> None:
    expected = [ALL[n][:, OWNED[m]].max() for n in range(4) for m in range(4) if n != m]
    assert unrelated(DRAWN, PICTURES, OWNED) == pytest.approx(expected, abs=1e-6)
    assert len(unrelated(DRAWN[:1], PICTURES, OWNED[:1])) == 0


def test_no_other_picture() -> None:
    found = compare(DRAWN[:1], PICTURES[:1], [np.array([0])])
    assert (found.other == -1).all()
    assert (found.nearest == -1).all()


def test_nothing_drawn() -> None:
    found = compare(DRAWN[:0], PICTURES, [])
    assert len(found.own) == len(found.other) == 0

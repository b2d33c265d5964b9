"""Which captions are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mnemoscope import InputError
from mnemoscope.audit.confirming.choosing import Chosen, choose

SCORES = np.random.default_rng(0).permutation(1000).astype(np.float64)
FLAGGED = SCORES >= 700
ALL = np.ones(1000, np.bool_)


def picked(seed: str = "a", at_most: int = 100, unflagged: int = 50) -> Chosen:
    return choose(SCORES, FLAGGED, ALL, seed, at_most=at_most, unflagged=unflagged)


def test_more_flagged_than_may_be_drawn() -> None:
    found = picked()
    assert SCORES[found.worst].tolist() == list(range(999, 949, -1))
    assert len(found.flagged) == len(set(found.flagged.tolist())) == 50
    assert SCORES[found.flagged].max() < 950
    assert SCORES[found.flagged].min() >= 700
    assert len(found.unflagged) == 50
    assert not FLAGGED[found.unflagged].any()
    assert (found.other_flagged, found.all_unflagged) == (250, 700)
    assert len(found.places) == 150


def test_the_same_seed_chooses_the_same() -> None:
    assert picked().places.tolist() == picked().places.tolist()
    assert picked().places.tolist() != picked("b").places.tolist()
    assert picked().worst.tolist() == picked("b").worst.tolist()


def test_every_caption_is_as_likely() -> None:
    times = np.zeros(1000)
    for seed in range(400):
        found = picked(str(seed))
        times[found.flagged] += 1
        times[found.unflagged] += 1
    for part, share in ((FLAGGED & (SCORES < 950), 50 / 250), (~FLAGGED, 50 / 700)):
        spread = np.sqrt(400 * share * (1 - share))
        assert np.abs(times[part] - 400 * share).max() < 5 * spread


def test_all_are_drawn_if_they_are_few() -> None:
    found = picked(at_most=300, unflagged=700)
    assert found.worst.tolist() == np.argsort(-SCORES)[:300].tolist()
    assert found.other_flagged == len(found.flagged) == 0
    assert found.unflagged.tolist() == np.flatnonzero(~FLAGGED).tolist()


def test_captions_without_a_picture_are_left_out() -> None:
    drawable = np.arange(1000) % 2 == 0
    found = choose(SCORES, FLAGGED, drawable, "a", at_most=100, unflagged=50)
    assert drawable[found.places].all()
    assert found.other_flagged + len(found.worst) == (FLAGGED & drawable).sum()
    assert found.all_unflagged == (~FLAGGED & drawable).sum()


def test_nothing_to_draw() -> None:
    none = choose(SCORES, FLAGGED, ~ALL, "a")
    assert len(none.places) == 0
    assert len(picked(at_most=0, unflagged=0).places) == 0
    assert len(picked(at_most=1).worst) == 0  # the one is chosen at random
    with pytest.raises(InputError, match="cannot be drawn"):
        picked(at_most=-1)

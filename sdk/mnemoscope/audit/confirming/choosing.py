"""Which captions are drawn: drawing one costs hundreds of times what screening it does."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

__all__ = ["AT_MOST", "UNFLAGGED", "Chosen", "choose"]

AT_MOST = 200
"""How many flagged captions are drawn at most, unless told otherwise."""
UNFLAGGED = 100
"""How many of those that are not flagged."""
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The captions that are drawn, in three parts; and how many each part stands for.

    Attributes:
        worst: Flagged, those with the highest scores: all that there are of them. # [A]
        flagged: A random sample of the other flagged ones, or all. # [B]
        unflagged: A random sample of those that are not flagged, or all. # [C]
        other_flagged: How many `flagged` stands for.
        all_unflagged: How many `unflagged` stands for.
    """

    worst: Places
    flagged: Places
    unflagged: Places
    other_flagged: int
    all_unflagged: int

    @property
    def places(self) -> Places:
        """All of them, the worst first. # [A + B + C]"""
        return np.concatenate([self.worst, self.flagged, self.unflagged])


def choose(
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    drawable: NDArray[np.bool_],
    seed: str,
    *,
    at_most: int = AT_MOST,
    unflagged: int = UNFLAGGED,
) -> Chosen:
    """Choose captions to draw.

    All flagged ones if they are no more than `at_most`. Otherwise half of that many are those with
    the highest scores, which an owner wants to see, and the rest is drawn at random from the other
    flagged ones, so that the share of all that are confirmed can be told.

    Args:
        scores: Of each caption. # [N]
        flagged: # [N]
        drawable: Whether it has a picture to compare with; the others are not looked at. # [N]
        seed: The same captions are chosen for the same seed.
        at_most: How many flagged ones.
        unflagged: How many of the others.

    Raises:
        InputError: a number is negative.
    """
    if min(at_most, unflagged) < 0:
        raise InputError(
            f"{at_most} flagged and {counted(unflagged, 'other caption')} cannot be drawn."
        )
    hits = np.flatnonzero(flagged & drawable)
    hits = hits[np.argsort(-scores[hits], kind="stable")]
    others = np.flatnonzero(~flagged & drawable)
    top = len(hits) if len(hits) <= at_most else at_most // 2
    dice = random.Random(seed)  # the same in any version of Python, as NumPy's need not be
    return Chosen(
        worst=hits[:top],
        flagged=_some(dice, hits[top:], at_most - top),
        unflagged=_some(dice, others, unflagged),
        other_flagged=len(hits) - top,
        all_unflagged=len(others),
    )


def _some(dice: random.Random, places: Places, count: int) -> Places:
    """So many of them, in their order; all if there are no more."""
    if len(places) <= count:
        return places
    return places[sorted(dice.sample(range(len(places)), count))]

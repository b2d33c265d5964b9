"""What drawings say of a caption: confirmed, a near miss, or not confirmed."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Finding", "judge", "usual"]

_QUANTILE, _LEAST = 0.99, 100
Cosines = NDArray[np.float32]


class Finding(StrEnum):
    """What came of drawing a caption."""

    confirmed = "confirmed"
    near_miss = "near miss"
    not_confirmed = "not confirmed"


def judge(
    own: Cosines,
    other: Cosines,
    copied_above: float | None,
    usual_up_to: float | None,
    same_above: float | None,
) -> list[Finding | None]:
    """What drawings say of each caption.

    Confirmed: one of its drawings is a copy of a picture of its own. A near miss: none is, but one
    is the same as another picture of the set, or more like its own than is usual. The same, and not
    a copy: the nearest of many is like a drawing by chance sooner than the one that is its own.

    Args:
        own: Cosine of each drawing with the caption's own pictures, the highest. # [N, K]
        other: With the nearest other picture of the set. # [N, K]
        copied_above: A cosine above it counts as a copy; None if nobody knows one, and then there
            are no findings.
        usual_up_to: As `usual` has it; None if nobody knows.
        same_above: A cosine above it counts as the same among many; None if nobody knows one.

    Returns:
        One for each caption.
    """
    if copied_above is None:
        return [None] * len(own)
    confirmed = np.any(own > copied_above, axis=1)
    near = np.zeros(len(own), np.bool_)
    if same_above is not None:
        near |= np.any(other > same_above, axis=1)
    if usual_up_to is not None:
        near |= np.any(own > usual_up_to, axis=1)
    return [
        Finding.confirmed if hit else Finding.near_miss if close else Finding.not_confirmed
        for hit, close in zip(confirmed.tolist(), near.tolist(), strict=True)
    ]


def usual(unrelated: Cosines) -> float | None:
    """How alike drawings are to pictures that they have nothing to do with: 99 of 100 no more.

    Args:
        unrelated: Of captions that are not flagged, the highest cosine of their drawings with the
            pictures of each other such caption. # [pair]

    Returns:
        None of fewer than 100 pairs.
    """
    if len(unrelated) < _LEAST:
        return None
    return float(np.quantile(unrelated, _QUANTILE))

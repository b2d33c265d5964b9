"""How many of a list would be found, by those that were looked at; exact, for lists of any size.

A list has parts; of each some are drawn at random, without putting them back, or all. How many of a
part are found at most and at least follows from the hypergeometric distribution: the interval of
Clopper and Pearson (1934) for lists that end. Where all were drawn nothing is uncertain.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

__all__ = ["LEVEL", "Estimate", "Part", "recall", "share", "total"]

LEVEL = 0.95


@dataclass(frozen=True)
class Part:
    """A part of a list.

    Attributes:
        size: How many it has.
        drawn: How many of them were drawn, at random if not all.
        found: How many of those were found.
    """

    size: int
    drawn: int
    found: int

    def __post_init__(self) -> None:
        if not 0 <= self.found <= self.drawn <= self.size:
            raise InputError(f"{self} does not fit: 0 <= found <= drawn <= size.")


@dataclass(frozen=True)
class Estimate:
    """A number that was estimated.

    Attributes:
        value: The estimate; None if nothing was drawn of what has some.
        low: It is no less, at the level that was asked for.
        high: It is no more.
    """

    value: float | None
    low: float
    high: float


def total(parts: Sequence[Part], level: float = LEVEL) -> Estimate:
    """How many of all parts would be found.

    Each part that was not drawn whole has an interval at 1 - (1 - level) / parts, so that all hold
    at once at the level at least (Bonferroni).

    Raises:
        InputError: level is no number in 0..1.
        BackendUnavailable: SciPy is not installed.
    """
    if not 0 < level < 1:
        raise InputError(f"A level lies between 0 and 1, {level} does not.")
    sampled = sum(part.drawn < part.size for part in parts)
    alpha = (1 - level) / max(1, sampled)
    ends = [_ends(part, alpha) for part in parts]
    known = all(part.drawn or not part.size for part in parts)
    value = sum(part.size * part.found / part.drawn for part in parts if part.drawn)
    low, high = (float(sum(each)) for each in zip((0, 0), *ends, strict=True))
    return Estimate(value if known else None, low, high)


def share(parts: Sequence[Part], level: float = LEVEL) -> Estimate | None:
    """The share of all parts that would be found; None if they are empty."""
    size = sum(part.size for part in parts)
    if not size:
        return None
    found = total(parts, level)
    return Estimate(
        None if found.value is None else found.value / size, found.low / size, found.high / size
    )


def recall(
    flagged: Sequence[Part], others: Sequence[Part], level: float = LEVEL
) -> Estimate | None:
    """Of all that would be found, the share that is among the flagged.

    Its ends are those of the two totals: at least `level` that both lie in theirs.

    Returns:
        None if nothing was found, so that there is no share of it.
    """
    uncertain = [sum(part.drawn < part.size for part in parts) for parts in (flagged, others)]
    alpha = (1 - level) / max(1, sum(uncertain))
    hits, missed = (
        total(parts, 1 - alpha * max(1, count))
        for parts, count in zip((flagged, others), uncertain, strict=True)
    )
    if not sum(part.found for part in (*flagged, *others)):
        return None
    value = None
    if hits.value is not None and missed.value is not None:
        value = hits.value / (hits.value + missed.value)
    low = hits.low / (hits.low + missed.high) if hits.low else 0.0
    return Estimate(value, low, hits.high / (hits.high + missed.low))


def _ends(part: Part, alpha: float) -> tuple[int, int]:
    """The fewest and the most that a part may have, such that each is found with alpha / 2."""
    fewest, most = part.found, part.size - (part.drawn - part.found)
    if fewest == most:
        return fewest, most
    distribution = _hypergeometric()
    possible = range(fewest, most + 1)

    def as_many(count: int) -> float:  # grows with the count
        return float(distribution.sf(part.found - 1, part.size, count, part.drawn))

    def as_few(count: int) -> float:  # falls
        return float(distribution.cdf(part.found, part.size, count, part.drawn))

    low = bisect_right(possible, alpha / 2, key=as_many) if part.found else 0
    high = bisect_left(possible, -alpha / 2, key=lambda count: -as_few(count))
    return possible[low], possible[high - 1]


def _hypergeometric() -> Any:
    try:
        from scipy.stats import hypergeom
    except ImportError as error:
        raise BackendUnavailable(
            f"Intervals need SciPy: {error}. Install it with {pip_install('calibrate')}."
        ) from None
    return hypergeom

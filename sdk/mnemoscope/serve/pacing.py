"""How long those who come now would wait: what is left to do, at the pace of what was done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

__all__ = ["Pace"]

_NEW = 0.2  # weight of the newest batch in what requests are taken to last


class Pace:
    """Batches that are worked off, and how long they take. Who shares it between threads locks."""

    def __init__(self, lanes: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Nothing is known yet.

        Args:
            lanes: How many batches are worked off at a time.
            clock: Tells seconds.
        """
        self._lanes, self._clock = lanes, clock
        self._each: float | None = None
        self._begun: dict[int, tuple[int, float]] = {}

    def expect(self, each: float) -> None:
        """Take a request to last so many seconds, until some were worked off."""
        self._each = each

    @property
    def begun(self) -> int:
        """How many requests are being worked off."""
        return sum(count for count, _ in self._begun.values())

    def begin(self, lane: int, count: int) -> None:
        """A batch of so many requests is begun."""
        self._begun[lane] = (count, self._clock())

    def end(self, lane: int) -> None:
        """It is done."""
        count, since = self._begun.pop(lane)
        each = (self._clock() - since) / count
        self._each = each if self._each is None else self._each + _NEW * (each - self._each)

    def left(self, waiting: int) -> float | None:
        """Seconds until all that is before a request that comes now should be done.

        Args:
            waiting: How many requests wait.

        Returns:
            None, as long as nobody knows how long a request takes.
        """
        if self._each is None:
            return None
        now, work = self._clock(), waiting * self._each
        begun = [max(0.0, n * self._each - (now - since)) for n, since in self._begun.values()]
        free = sorted([0.0] * (self._lanes - len(begun)) + begun)  # when each lane is
        for lanes, (first, other) in enumerate(pairwise([*free, math.inf]), 1):
            if work <= lanes * (other - first):
                return first + work / lanes
            work -= lanes * (other - first)
        raise AssertionError  # the last lane is never full

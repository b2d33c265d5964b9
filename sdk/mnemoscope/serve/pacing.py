"""How long those who come now would wait: what is left to do, at the pace of what was done."""

from __future__ import annotations

import time
from collections.abc import Callable

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

    @property
    def busy(self) -> int:
        """How many batches are being worked off."""
        return len(self._begun)

    def expect(self, each: float) -> None:
        """Take a request to last so many seconds, until some were worked off."""
        self._each = each

    def begin(self, lane: int, count: int) -> None:
        """A batch of so many requests is begun."""
        self._begun[lane] = (count, self._clock())

    def end(self, lane: int) -> None:
        """What was begun there, if anything was, is done."""
        if lane not in self._begun:
            return
        count, since = self._begun.pop(lane)
        each = (self._clock() - since) / count
        self._each = each if self._each is None else self._each + _NEW * (each - self._each)

    def left(self, waiting: int) -> float | None:
        """Seconds until all that is begun or waits should be done.

        Args:
            waiting: How many requests wait.

        Returns:
            None, as long as nobody knows how long a request takes.
        """
        if self._each is None:
            return None
        now, each = self._clock(), self._each
        begun = sum(max(0.0, count * each - (now - since)) for count, since in self._begun.values())
        return (begun + waiting * each) / self._lanes

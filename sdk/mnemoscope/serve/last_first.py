"""A condition that wakes whoever slept last: its core and its caches are the warmest."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["LastFirst"]


class LastFirst:
    """As `threading.Condition`, which wakes whoever has slept for longest. Its lock is held."""

    def __init__(self, lock: threading.Lock) -> None:
        """Nobody sleeps.

        Args:
            lock: What whoever calls a method holds; it is let go of in sleep.
        """
        self._lock = lock
        self._asleep: list[threading.Condition] = []  # one each, who slept last at the end

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        """Sleep until something is there."""
        while not is_there():
            self.wait()

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until woken, or for so many seconds."""
        mine = threading.Condition(self._lock)
        self._asleep.append(mine)
        mine.wait(timeout)
        if mine in self._asleep:  # nobody woke it
            self._asleep.remove(mine)

    def notify(self, count: int) -> None:
        """Wake so many, if there are."""
        for _ in range(min(count, len(self._asleep))):
            self._asleep.pop().notify()

    def notify_all(self) -> None:
        """Wake all."""
        self.notify(len(self._asleep))

"""What a model has done so far: counts and times."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ..batches import Batch

__all__ = ["Spent", "Statistics", "Totals"]


@dataclass(frozen=True)
class Spent:
    """How often, and how long in all.

    Attributes:
        count: How often.
        ns: Nanoseconds.
    """

    count: int = 0
    ns: int = 0

    def plus(self, count: int, seconds: float) -> Spent:
        """This, and so much more."""
        return Spent(self.count + count, self.ns + round(1e9 * seconds))


@dataclass(frozen=True)
class Totals:
    """Since the service started.

    Attributes:
        prompts: Prompts that were measured.
        batches: Batches that they were measured in.
        last: Milliseconds since 1970 of the last batch; 0 before the first.
        success: Requests that were answered.
        fail: Requests that were not.
        queue: What prompts spent waiting.
        engine: What prompts spent in batches, each the time of its whole batch.
        sizes: Batches by how many prompts they had, and the time that they took.
    """

    prompts: int
    batches: int
    last: int
    success: Spent
    fail: Spent
    queue: Spent
    engine: Spent
    sizes: dict[int, Spent]


class Statistics:
    """Counts batches, in the engine's thread, and requests, in the loop's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prompts = self._last = 0
        self._success = self._fail = self._queue = self._engine = Spent()
        self._sizes: dict[int, Spent] = {}

    def batch(self, batch: Batch) -> None:
        """Count one."""
        size = len(batch.waited)
        with self._lock:
            self._prompts += size - batch.failed
            self._last = round(1000 * time.time())
            self._queue = self._queue.plus(size, sum(batch.waited))
            self._engine = self._engine.plus(size, size * batch.seconds)
            self._sizes[size] = self._sizes.get(size, Spent()).plus(1, batch.seconds)

    def request(self, seconds: float, *, answered: bool) -> None:
        """Count one, and how long it took in all."""
        with self._lock:
            if answered:
                self._success = self._success.plus(1, seconds)
            else:
                self._fail = self._fail.plus(1, seconds)

    def totals(self) -> Totals:
        """What was counted so far."""
        with self._lock:
            return Totals(
                prompts=self._prompts,
                batches=sum(each.count for each in self._sizes.values()),
                last=self._last,
                success=self._success,
                fail=self._fail,
                queue=self._queue,
                engine=self._engine,
                sizes=dict(sorted(self._sizes.items())),
            )

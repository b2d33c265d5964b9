"""One thread that works off a bounded queue, as many requests at a time as there are.

Batches gather themselves: whatever arrives while one is worked off is the next. Nothing waits for
company unless it is told to (`max_wait`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.errors import InputError, MnemoscopeError, Overloaded, ServiceClosed

__all__ = ["Batch", "Batches", "Limits"]

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")
Done = TypeVar("Done")
_log = logging.getLogger(__name__)
_FIRST = 0.05  # seconds a batch is taken to last before one has
_NEW = 0.2  # weight of the newest batch in what batches are taken to last


@dataclass(frozen=True)
class Limits:
    """How requests are gathered.

    Attributes:
        batch: The most that are worked off at a time. CPUs gain little beyond 8, and whoever comes
            meanwhile waits for all of them; GPUs gain to 32 and more.
        queue: The most that wait; who comes then is refused.
        wait: Seconds that the first of a batch waits for others; 0 where more at a time gain
            little, as on CPUs.

    Raises:
        InputError: one of them cannot be used.
    """

    batch: int = 8
    queue: int = 256
    wait: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("batch", self.batch), ("queue", self.queue)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r:.40}. Give a whole number from 1.")
        if not (isinstance(self.wait, (int, float)) and 0 <= self.wait <= 60):
            raise InputError(f"wait is {self.wait!r:.40}. Give 0 to 60 seconds.")


@dataclass(frozen=True)
class Batch:
    """What was worked off at a time, for whoever counts.

    Attributes:
        waited: Seconds that each request stood in the queue.
        seconds: That the work took.
        failed: How many ended in an error.
        contexts: In which each was submitted: by it a trace is told whose batch this was.
    """

    waited: tuple[float, ...]
    seconds: float
    failed: int
    contexts: tuple[Context, ...] = ()


@dataclass(frozen=True)
class _Request(Generic[Key, Item, Result]):
    key: Key
    item: Item
    future: Future[Result] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)
    context: Context = field(default_factory=copy_context)


class Batches(Closing, Generic[Key, Item, Result]):
    """A queue and its thread. Safe to share between threads."""

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], Sequence[Result | MnemoscopeError]],
        limits: Limits,
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        """Start the thread.

        Args:
            work: Given requests of one key, in order; a result or an error for each.
            limits: How they are gathered.
            observe: Told of every batch, in the thread.
        """
        self._work, self._observe, self.limits = work, observe, limits
        self._waiting: deque[_Request[Key, Item, Result]] = deque()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._accepts = True
        self._ends = False
        self._lasts = _FIRST
        self._thread = threading.Thread(target=self._run, name="mnemoscope-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many stand in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, key: Key, items: Sequence[Item]) -> list[Future[Result]]:
        """Queue requests: all of them, or none. Who cancels a future before its turn is dropped.

        Args:
            key: Only requests of one key are worked off together.
            items: What `work` is given.

        Raises:
            Overloaded: the queue has no room for them.
            ServiceClosed: nothing is taken on any more.
        """
        requests: list[_Request[Key, Item, Result]] = [_Request(key, item) for item in items]
        room = self.limits.queue - len(requests)
        with self._changed:
            self._check()
            if len(self._waiting) > room:
                self._drop_cancelled()
            if (count := len(self._waiting)) > room:
                again = math.ceil(count / self.limits.batch) * self._lasts
                raise Overloaded(count, again, len(requests))
            self._waiting.extend(requests)
            self._changed.notify_all()
        return [each.future for each in requests]

    def call(self, function: Callable[[], Done]) -> Future[Done]:
        """Have the thread call something between two batches, before those that wait.

        Raises:
            ServiceClosed: nothing is taken on any more.
        """
        future: Future[Done] = Future()
        with self._changed:
            self._check()
            self._calls.append((function, future))  # type: ignore[arg-type]
            self._changed.notify_all()
        return future

    def drain(self, timeout: float | None = None) -> bool:
        """Take nothing on any more, and wait until all that was taken on is done.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is.
        """
        with self._changed:
            self._accepts = False
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not (self._waiting or self._calls or self._busy), timeout
            )

    def close(self) -> None:
        """Refuse what still waits, let what is worked off finish, and end the thread."""
        with self._changed:
            self._accepts, self._ends = False, True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for request in self._waiting:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(ServiceClosed())
        self._waiting.clear()

    def _check(self) -> None:
        if not self._accepts:
            raise ServiceClosed()

    def _drop_cancelled(self) -> None:
        left = [each for each in self._waiting if not each.future.cancelled()]
        self._waiting = deque(left)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._calls or self._ends)
                if self._ends:
                    break
                self._busy = True
                call = self._calls.popleft() if self._calls else None
                batch = [] if call is not None else self._gather()
            if call is not None:
                _settle(call[1], call[0])
            elif batch:
                self._do(batch)
        for _, future in self._calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(ServiceClosed())
        self._calls.clear()

    def _gather(self) -> list[_Request[Key, Item, Result]]:
        """The next requests of one key, less those that nobody waits for any more."""
        until = self._waiting[0].since + self.limits.wait
        while len(self._waiting) < self.limits.batch and not (self._ends or self._calls):
            left = until - time.perf_counter()
            if left <= 0 or not self._accepts:
                break
            self._changed.wait(left)
        found: list[_Request[Key, Item, Result]] = []
        others: deque[_Request[Key, Item, Result]] = deque()
        while self._waiting and len(found) < self.limits.batch:
            request = self._waiting.popleft()
            if found and request.key != found[0].key:
                others.append(request)
            elif request.future.set_running_or_notify_cancel():
                found.append(request)
        self._waiting.extendleft(reversed(others))
        return found

    def _do(self, batch: list[_Request[Key, Item, Result]]) -> None:
        start = time.perf_counter()
        results: Sequence[Result | BaseException]
        try:
            results = self._work(batch[0].key, [each.item for each in batch])
        except BaseException as error:  # the thread outlives whatever went wrong
            results = [error] * len(batch)
        seconds = time.perf_counter() - start
        self._lasts += _NEW * (seconds - self._lasts)
        done = Batch(
            waited=tuple(start - each.since for each in batch),
            seconds=seconds,
            failed=sum(isinstance(each, BaseException) for each in results),
            contexts=tuple(each.context for each in batch),
        )
        try:
            self._observe(done)
        except Exception:
            _log.exception("What observes batches failed; their requests are answered all the same")
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                each.future.set_exception(result)
            else:
                each.future.set_result(result)


def _settle(future: Future[object], function: Callable[[], object]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

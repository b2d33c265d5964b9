"""A bounded queue and its lanes, threads that work it off, as many requests at a time as there are.

Batches gather themselves: whatever arrives while one is worked off is the next, and lanes share it.
Nothing waits for company unless it is told to (`Limits.wait`), and there was more for each lane
just now: who was answered comes again.
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
from functools import partial
from typing import Generic, Literal, TypeVar

from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.errors import InputError, MnemoscopeError, Overloaded, ServiceClosed

from .last_first import LastFirst
from .pacing import Pace

__all__ = ["Batch", "Batches", "Limits"]

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")
Done = TypeVar("Done")
_log = logging.getLogger(__name__)
_LATE = 10  # waits after which those who were answered do not come again
_SOON = 0.05  # seconds after which to come again, before anybody knows how long a request takes


@dataclass(frozen=True)
class Limits:
    """How requests are gathered.

    Attributes:
        batch: The most that are worked off at a time. CPUs gain little beyond 8, and whoever comes
            meanwhile waits for all of them; GPUs gain to 32 and more.
        queue: The most that wait; who comes then is refused.
        wait: Seconds that a batch waits at most for more, until it has what was there for each lane
            less than ten times as long ago: who asks alone is answered at once.
        lanes: How many batches are worked off at a time, each in a thread of its own.
        patience: Seconds within which all that is before a request should be done; who would
            wait longer is refused. None: any time.

    Raises:
        InputError: one of them cannot be used.
    """

    batch: int = 8
    queue: int = 256
    wait: float = 0.0
    lanes: int = 1
    patience: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "queue", "lanes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r:.40}. Give a whole number from 1.")
        if not (isinstance(self.wait, (int, float)) and 0 <= self.wait <= 60):
            raise InputError(f"wait is {self.wait!r:.40}. Give 0 to 60 seconds.")
        patience = self.patience
        if patience is not None and not (isinstance(patience, (int, float)) and patience > 0):
            raise InputError(f"patience is {patience!r:.40}. Give seconds above 0, or None.")


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
    """A queue and its lanes. Safe to share between threads."""

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], Sequence[Result | MnemoscopeError]],
        limits: Limits,
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        """Start the lanes.

        Args:
            work: Given requests of one key, in order; a result or an error for each. Lanes call it
                at the same time.
            limits: How they are gathered.
            observe: Told of every batch, in its lane.
        """
        self._work, self._observe, self.limits = work, observe, limits
        self._waiting: deque[_Request[Key, Item, Result]] = deque()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._lock = threading.Lock()
        self._there = LastFirst(self._lock)  # something to do, for lanes
        self._done = threading.Condition(self._lock)  # something done, for who drains
        self._pace = Pace(limits.lanes)
        self._busy: set[int] = set()  # lanes with a batch
        self._called = False  # while it is, no batch is begun
        self._crowd = 0  # how many there were of late, those that are worked off too
        self._ended = -math.inf  # when the last batch was done
        self._accepts = True
        self._ends = False
        self._lanes = [
            threading.Thread(target=self._run, args=[lane], name=f"mnemoscope-{lane}", daemon=True)
            for lane in range(limits.lanes)
        ]
        for each in self._lanes:
            each.start()

    @property
    def waiting(self) -> int:
        """How many stand in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether all lanes run."""
        return all(each.is_alive() for each in self._lanes)

    def submit(self, key: Key, items: Sequence[Item]) -> list[Future[Result]]:
        """Queue requests: all of them, or none. Who cancels a future before its turn is dropped.

        Args:
            key: Only requests of one key are worked off together.
            items: What `work` is given.

        Raises:
            Overloaded: the queue has no room for them, or they would wait too long.
            ServiceClosed: nothing is taken on any more.
        """
        requests: list[_Request[Key, Item, Result]] = [_Request(key, item) for item in items]
        with self._lock:
            self._check()
            if requests and self._is_full(len(requests)):
                self._drop_cancelled()
                if self._is_full(len(requests)):
                    waiting = len(self._waiting)
                    raise Overloaded(waiting, self._pace.left(waiting) or _SOON, len(requests))
            self._waiting.extend(requests)
            self._there.notify(len(requests))  # a lane that wakes for nothing holds up the others
        return [each.future for each in requests]

    def expect(self, each: float) -> None:
        """Take a request to last so many seconds, until some were worked off."""
        with self._lock:
            self._pace.expect(each)

    def call(self, function: Callable[[], Done]) -> Future[Done]:
        """Have a lane call something while no batch is worked off, before those that wait.

        Raises:
            ServiceClosed: nothing is taken on any more.
        """
        future: Future[Done] = Future()
        with self._lock:
            self._check()
            self._calls.append((function, future))  # type: ignore[arg-type]
            self._there.notify_all()
        return future

    def drain(self, timeout: float | None = None) -> bool:
        """Take nothing on any more, and wait until all that was taken on is done.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is.
        """
        with self._lock:
            self._accepts = False
            self._there.notify_all()
            return self._done.wait_for(
                lambda: not (self._waiting or self._calls or self._called or self._busy),
                timeout,
            )

    def close(self) -> None:
        """Refuse what still waits, let what is worked off finish, and end the lanes."""
        with self._lock:
            self._accepts, self._ends = False, True
            self._there.notify_all()
        for lane in self._lanes:
            if lane is not threading.current_thread():
                lane.join()
        for request in self._waiting:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(ServiceClosed())
        self._waiting.clear()
        for _, future in self._calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(ServiceClosed())
        self._calls.clear()

    def _check(self) -> None:
        if not self._accepts:
            raise ServiceClosed()

    def _is_full(self, more: int) -> bool:
        waiting, patience = len(self._waiting), self.limits.patience
        if waiting + more > self.limits.queue:
            return True
        return patience is not None and (self._pace.left(waiting) or 0.0) > patience

    def _drop_cancelled(self) -> None:
        left = [each for each in self._waiting if not each.future.cancelled()]
        self._waiting = deque(left)

    def _run(self, lane: int) -> None:
        while (task := self._take(lane)) is not None:
            task()
            with self._lock:
                if self._called or self._calls:  # for which all others wait, or that waits for them
                    self._there.notify_all()
                self._called = False  # what was done was the call, or there was none
                self._busy.discard(lane)
                self._done.notify_all()

    def _take(self, lane: int) -> Callable[[], None] | None:
        """What a lane does next; None at the end."""
        with self._lock:
            while True:
                self._there.wait_for(lambda: self._ends or self._next() is not None)
                if self._ends:
                    return None
                if self._next() == "call":
                    self._called = True
                    return partial(_settle, *self._calls.popleft())
                if batch := self._gather():
                    self._busy.add(lane)
                    self._pace.begin(lane, len(batch))
                    return partial(self._do, lane, batch)
                self._done.notify_all()  # when all that waited were gone

    def _next(self) -> Literal["call", "batch"] | None:
        """What is to be done now: a call as soon as nothing else is, and before any batch."""
        if self._called or (self._calls and self._busy):
            return None
        if self._calls:
            return "call"
        return "batch" if self._waiting else None

    def _gather(self) -> list[_Request[Key, Item, Result]]:
        """The next requests of one key, less those that nobody waits for any more."""
        until = time.perf_counter() + self.limits.wait
        while len(self._waiting) < self._expected() and self._accepts:
            left = until - time.perf_counter()
            if left <= 0:
                break
            self._there.wait(left)
            if self._ends or self._next() != "batch":
                return []
        most = max(self._expected(), self._share(len(self._waiting) + self._pace.begun))
        found: list[_Request[Key, Item, Result]] = []
        others: deque[_Request[Key, Item, Result]] = deque()
        while self._waiting and len(found) < most:
            request = self._waiting.popleft()
            if found and request.key != found[0].key:
                others.append(request)
            elif request.future.set_running_or_notify_cancel():
                found.append(request)
        self._waiting.extendleft(reversed(others))
        self._there.notify(len(self._waiting))  # lanes that are free, for what is left
        return found

    def _expected(self) -> int:
        """How many there should soon be for each lane."""
        if time.perf_counter() - self._ended > _LATE * self.limits.wait:
            return 0
        return min(self.limits.batch, self._crowd // self.limits.lanes)

    def _share(self, requests: int) -> int:
        """What one of all lanes takes of so many."""
        return min(self.limits.batch, math.ceil(requests / self.limits.lanes))

    def _do(self, lane: int, batch: list[_Request[Key, Item, Result]]) -> None:
        start = time.perf_counter()
        results: Sequence[Result | BaseException]
        try:
            results = self._work(batch[0].key, [each.item for each in batch])
        except BaseException as error:  # the lane outlives whatever went wrong
            results = [error] * len(batch)
        seconds = time.perf_counter() - start
        with self._lock:  # before who was answered comes again
            self._crowd = max(len(self._waiting) + self._pace.begun, self._crowd - 1)
            self._ended = start + seconds
            self._pace.end(lane)
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


def _settle(function: Callable[[], object], future: Future[object]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

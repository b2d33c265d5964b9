"""The queue and its lanes, with work that waits until it is told to go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import pairwise
from typing import Any

import pytest

from mnemoscope import NumericsError, Overloaded, ServiceClosed
from mnemoscope.serve.batches import Batch, Batches, Limits


class Work:
    """Upper case; what has a "!" is an error, and "#" ends worse. It holds until `go`."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.seen: list[tuple[str, list[str]]] = []
        self.batches: list[Batch] = []

    def __call__(self, key: str, items: Sequence[str]) -> list[str | NumericsError]:
        self.seen.append((key, list(items)))
        self.begun.set()
        assert self.go.wait(10)
        if "#" in items:
            raise MemoryError
        return [NumericsError(each) if "!" in each else each.upper() for each in items]


@contextmanager
def working(**limits: Any) -> Iterator[tuple[Work, Batches[str, str, str]]]:
    """With a first request, "x", under way."""
    work = Work()
    with Batches(work, Limits(**limits), work.batches.append) as batches:
        [first] = batches.submit("k", ["x"])
        assert work.begun.wait(10)
        try:
            yield work, batches
        finally:
            work.go.set()
        assert first.result(10) == "X"


def submitted(batches: Batches[str, str, str], items: str, key: str = "k") -> list[Future[str]]:
    return [batches.submit(key, [each])[0] for each in items]


def test_what_comes_meanwhile_is_the_next_batch() -> None:
    with working(batch=3) as (work, batches):
        found = submitted(batches, "abcd")
        assert batches.waiting == 4
        work.go.set()
        assert [each.result(10) for each in found] == list("ABCD")
    assert work.seen == [("k", ["x"]), ("k", ["a", "b", "c"]), ("k", ["d"])]
    assert [len(each.waited) for each in work.batches] == [1, 3, 1]
    assert all(each.seconds > 0 and min(each.waited) > 0 for each in work.batches[1:])


def test_a_batch_knows_in_which_contexts_its_requests_came() -> None:
    asked = ContextVar("asked", default="by nobody")
    with working() as (work, batches):
        for each in "ab":
            context = copy_context()
            context.run(asked.set, f"by {each}")
            context.run(batches.submit, "k", each)
        work.go.set()
        assert batches.submit("k", ["c"])[0].result(10) == "C"
    found = [context.run(asked.get) for each in work.batches[1:] for context in each.contexts]
    assert found[:2] == ["by a", "by b"]
    assert found[2] == "by nobody"


def test_only_what_is_measured_alike_goes_together() -> None:
    with working() as (work, batches):
        found = [*submitted(batches, "ab"), *submitted(batches, "c", "l"), *submitted(batches, "d")]
        work.go.set()
        assert [each.result(10) for each in found] == list("ABCD")
    assert work.seen[1:] == [("k", ["a", "b", "d"]), ("l", ["c"])]


def test_one_error_is_of_one_request() -> None:
    with working() as (work, batches):
        good, bad, other = submitted(batches, "a!b")
        work.go.set()
        assert (good.result(10), other.result(10)) == ("A", "B")
        with pytest.raises(NumericsError, match="!"):
            bad.result(10)
    assert [each.failed for each in work.batches] == [0, 1]


def test_the_thread_outlives_what_nobody_expected() -> None:
    with working() as (work, batches):
        [bad] = submitted(batches, "#")
        work.go.set()
        with pytest.raises(MemoryError):
            bad.result(10)
        assert batches.submit("k", ["a"])[0].result(10) == "A"
    assert [each.failed for each in work.batches] == [0, 1, 0]


def test_who_observes_cannot_keep_answers_back(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.go.set()
    with Batches(work, Limits(), lambda batch: 1 / batch.failed) as batches:
        assert batches.submit("k", ["a"])[0].result(10) == "A"
    assert "answered all the same" in caplog.text


def test_a_full_queue_refuses() -> None:
    with working(batch=2, queue=5) as (work, batches):
        found = submitted(batches, "abcde")
        with pytest.raises(
            Overloaded, match=r"5 prompts are waiting.* in 1 s, or send fewer"
        ) as caught:
            batches.submit("k", ["f"])
        assert 0 < caught.value.retry_after < 1
        assert found[1].cancel()
        [last] = batches.submit("k", ["g"])  # there is room for who takes the place
        work.go.set()
        assert [each.result(10) for each in (found[0], *found[2:], last)] == list("ACDEG")
    assert [items for _, items in work.seen[1:]] == [["a", "c"], ["d", "e"], ["g"]]


def test_several_are_queued_all_or_none() -> None:
    with working(batch=4, queue=4) as (work, batches):
        found = batches.submit("k", "abc")
        with pytest.raises(Overloaded, match="3 prompts are waiting, too many to take on 2 more"):
            batches.submit("k", "de")
        found += batches.submit("k", "f")
        assert batches.submit("k", "") == []
        work.go.set()
        assert [each.result(10) for each in found] == list("ABCF")
    assert work.seen[1:] == [("k", ["a", "b", "c", "f"])]


def test_who_waits_no_longer_is_not_worked_off() -> None:
    with working() as (work, batches):
        first, second = submitted(batches, "ab")
        assert first.cancel()
        work.go.set()
        assert second.result(10) == "B"
        with pytest.raises(CancelledError):
            first.result(10)
    assert work.seen[1:] == [("k", ["b"])]


def test_a_batch_may_wait_for_company() -> None:
    work = Work()
    work.go.set()
    with Batches(work, Limits(batch=2, wait=30)) as batches:
        assert [each.result(10) for each in batches.submit("k", "xy")] == ["X", "Y"]
        found = submitted(batches, "ab")
        assert [each.result(10) for each in found] == ["A", "B"]  # full: it waits no longer
        assert work.seen == [("k", ["x", "y"]), ("k", ["a", "b"])]
        [lone] = submitted(batches, "c")
        assert not lone.done()
        assert batches.drain(10)  # nobody can join it any more
        assert lone.result(0) == "C"


def test_a_batch_that_nobody_joins_waits_as_long_as_it_may() -> None:
    """Counted from its own time: those before it were done just now, however long they took."""
    begun: list[float] = []

    def work(_: str, items: Sequence[str]) -> list[str | NumericsError]:
        begun.append(time.perf_counter())
        time.sleep(0.6 if len(items) == 2 else 0)
        return list(items)

    with Batches[str, str, str](work, Limits(batch=2, wait=0.1)) as batches:
        assert [each.result(10) for each in batches.submit("k", "xy")] == ["x", "y"]
        start = time.perf_counter()
        assert batches.submit("k", "c")[0].result(10) == "c"
    assert begun[-1] - start >= 0.09


def test_a_call_does_not_wait_for_company() -> None:
    work = Work()
    work.go.set()
    with Batches(work, Limits(batch=2, wait=30)) as batches:
        assert [each.result(10) for each in batches.submit("k", "xy")] == ["X", "Y"]
        [lone] = submitted(batches, "c")
        time.sleep(0.05)  # until it waits
        assert batches.call(lambda: len(work.seen)).result(10) == 1
        assert not lone.done()
        assert batches.drain(10)
        assert lone.result(0) == "C"


def test_who_comes_alone_waits_for_nobody() -> None:
    work = Work()
    work.go.set()
    with Batches(work, Limits(batch=2, wait=10)) as batches:
        start = time.perf_counter()
        assert [each.result(10) for each in submitted(batches, "a")] == ["A"]
        assert [each.result(10) for each in submitted(batches, "b")] == ["B"]
        assert time.perf_counter() - start < 5  # "a" was alone, and waited for nobody either


def test_company_is_what_each_lane_had_of_late() -> None:
    work = Work()
    with Batches(work, Limits(batch=4, wait=30, lanes=2)) as batches:
        crowd = batches.submit("k", "uvwxyz")
        work.go.set()
        assert [each.result(10) for each in crowd] == list("UVWXYZ")  # three a lane
        # of six there are five when the second lane is done, then four, and so on: two a lane
        for pair in ("ab", "cd"):
            found = submitted(batches, pair)
            assert [each.result(10) for each in found] == list(pair.upper())
            assert work.seen[-1] == ("k", list(pair))
        for lone in "efg":
            assert [each.result(10) for each in submitted(batches, lone)] == [lone.upper()]


def test_a_crowd_of_long_ago_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemoscope.serve.batches._LATE", 0)  # any time is long
    work = Work()
    work.go.set()
    with Batches(work, Limits(batch=4, wait=30)) as batches:
        assert [each.result(10) for each in batches.submit("k", "wxyz")] == list("WXYZ")
        assert [each.result(10) for each in submitted(batches, "a")] == ["A"]


def test_a_lane_leaves_its_share_to_those_that_are_busy() -> None:
    work = Work()
    with Batches(work, Limits(batch=8, lanes=2)) as batches:
        first = submitted(batches, "a")
        assert work.begun.wait(10)
        others = batches.submit("k", "bcdef")  # of six in all, three are the free lane's
        while len(work.seen) < 2:
            time.sleep(0.001)
        work.go.set()
        assert [each.result(10) for each in (*first, *others)] == list("ABCDEF")
    assert work.seen[1] == ("k", ["b", "c", "d"])


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_no_request_is_forgotten(lanes: int) -> None:
    """Lanes are woken one at a time: whatever comes when, one of them sees it."""

    def work(_: str, items: Sequence[int]) -> list[int]:
        time.sleep(0.0003)
        return [each + 1 for each in items]

    def ask(first: int, batches: Batches[str, int, int]) -> list[Future[int]]:
        found: list[Future[int]] = []
        for k in range(60):
            found += batches.submit("ab"[k % 2], [first] * (k % 3 + 1))
            if not k % 7:
                batches.call(lambda: None)
            if k % 5:
                found[-1].result(10)
        return found

    limits = Limits(batch=3, lanes=lanes, wait=0.001, queue=10**6)
    with Batches(work, limits) as batches, ThreadPoolExecutor(4) as threads:
        for first, found in enumerate(threads.map(lambda k: ask(k, batches), range(4))):
            assert {each.result(10) for each in found} == {first + 1}
        assert batches.drain(10)


def test_a_call_goes_between_batches() -> None:
    with working(batch=1) as (work, batches):
        submitted(batches, "ab")
        seen = batches.call(lambda: len(work.seen))
        failing = batches.call(lambda: 1 / 0)
        work.go.set()
        assert seen.result(10) == 1
        with pytest.raises(ZeroDivisionError):
            failing.result(10)


def test_lanes_share_what_waits() -> None:
    both = threading.Barrier(3)
    seen: list[list[str]] = []

    def work(_: str, items: Sequence[str]) -> list[str]:
        seen.append(list(items))
        both.wait(10)
        return [each.upper() for each in items]

    with Batches(work, Limits(batch=8, lanes=2)) as batches:
        found = batches.submit("k", "abcdef")
        both.wait(10)  # both work at the same time, or nobody comes here
        assert [each.result(10) for each in found] == list("ABCDEF")
        assert sorted(seen) == [["a", "b", "c"], ["d", "e", "f"]]
        assert batches.alive
    assert not batches.alive


def test_a_call_has_all_lanes_to_itself() -> None:
    work = Work()
    held, calling = threading.Event(), threading.Event()

    def call() -> int:
        calling.set()
        assert held.wait(10)
        return len(work.seen)

    with Batches(work, Limits(batch=1, lanes=2)) as batches:
        first = submitted(batches, "x")
        assert work.begun.wait(10)
        called = batches.call(call)
        later = submitted(batches, "ab")
        assert not calling.wait(0.05)  # one lane is free, and the other is not
        work.go.set()
        assert calling.wait(10)
        assert first[0].done()
        assert not batches.drain(0.05)
        held.set()
        assert called.result(10) == 1  # what came later had to wait
        assert [each.result(10) for each in later] == ["A", "B"]
        assert batches.drain(10)


def test_who_would_wait_too_long_is_refused() -> None:
    with working(batch=1, patience=13) as (work, batches):
        assert len(submitted(batches, "ab")) == 2  # nobody knows yet how long one takes
        batches.expect(4.0)
        [third] = submitted(batches, "c")  # behind two of four seconds, and what is left of another
        with pytest.raises(Overloaded, match=r"3 prompts are waiting.* in 1[3-6] s, ") as caught:
            submitted(batches, "d")
        assert 13 < caught.value.retry_after < 16
        assert batches.submit("k", []) == []
        assert third.cancel()
        [last] = submitted(batches, "e")  # there is time for who takes the place
        work.go.set()
        assert last.result(10) == "E"


def test_who_was_answered_may_come_again_at_once() -> None:
    """However long it was thought to take: it is done."""
    with Batches(lambda _, items: items, Limits(patience=1)) as batches:
        for _ in range(50):
            batches.expect(1000.0)
            assert batches.submit("k", ["a"])[0].result(10) == "a"


def test_draining() -> None:
    with working() as (work, batches):
        found = submitted(batches, "abc")
        assert not batches.drain(0)
        for refused in (lambda: batches.submit("k", ["d"]), lambda: batches.call(int)):
            with pytest.raises(ServiceClosed, match="shutting down"):
                refused()
        work.go.set()
        assert batches.drain(10)
        assert [each.result(0) for each in found] == list("ABC")


def test_closing_refuses_what_waits() -> None:
    with working() as (work, batches):
        [waits] = submitted(batches, "a")
        called = batches.call(int)
        closing = threading.Thread(target=batches.close)
        closing.start()
        work.go.set()
        closing.join(10)
        for each in (waits, called):
            with pytest.raises(ServiceClosed):
                each.result(0)
    batches.close()


def test_who_asks_alone_has_the_lane_that_worked_last() -> None:
    """Its core and caches are warm. Lanes that took turns would change at every request."""
    lanes: list[str] = []

    def work(_: str, items: Sequence[str]) -> list[str | NumericsError]:
        lanes.append(threading.current_thread().name)
        return list(items)

    with Batches[str, str, str](work, Limits(lanes=2)) as batches:
        for _ in range(20):
            batches.submit("k", ["x"])[0].result(10)
            time.sleep(0.01)  # so that it sleeps again
    changes = sum(one != other for one, other in pairwise(lanes))
    assert len(lanes) == 20
    assert changes < 10

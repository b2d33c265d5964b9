"""Who slept last is woken first, each once, and nobody is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mnemoscope.serve.last_first import LastFirst


class Sleepers:
    """Threads that fall asleep one after the other, and tell when they are woken."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.there = LastFirst(self.lock)
        self.woken: list[str] = []
        self._asleep = 0
        self._threads: list[threading.Thread] = []

    def lie_down(self, name: str, timeout: float | None = None) -> None:
        before = self._asleep
        thread = threading.Thread(target=self._sleep, args=[name, timeout], daemon=True)
        thread.start()
        self._threads.append(thread)
        until = time.monotonic() + 20
        while self._asleep == before and time.monotonic() < until:
            time.sleep(0.001)
        with self.lock:  # it let go of it: it sleeps
            assert self._asleep == before + 1

    def notify(self, count: int | None) -> list[str]:
        """Who is woken by it."""
        before = len(self.woken)
        left = self._asleep - before
        with self.lock:
            if count is None:
                self.there.notify_all()
            else:
                self.there.notify(count)
        wanted = before + (left if count is None else min(left, count))
        until = time.monotonic() + 20
        while len(self.woken) < wanted and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.01)  # for who should not be woken
        return self.woken[before:]

    def _sleep(self, name: str, timeout: float | None) -> None:
        with self.lock:
            self._asleep += 1
            self.there.wait(timeout)
            self.woken.append(name)

    def close(self) -> None:
        self.notify(None)
        for each in self._threads:
            each.join(20)


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    found = Sleepers()
    yield found
    found.close()


def test_who_slept_last_is_woken_first(sleepers: Sleepers) -> None:
    for name in "abc":
        sleepers.lie_down(name)
    assert sleepers.notify(1) == ["c"]
    sleepers.lie_down("d")
    assert sleepers.notify(1) == ["d"]
    assert sorted(sleepers.notify(2)) == ["a", "b"]


def test_more_than_there_are(sleepers: Sleepers) -> None:
    assert sleepers.notify(3) == []  # and it is not kept for who comes later
    sleepers.lie_down("a")
    assert sleepers.woken == []
    assert sleepers.notify(3) == ["a"]


def test_all(sleepers: Sleepers) -> None:
    for name in "abc":
        sleepers.lie_down(name)
    assert sorted(sleepers.notify(None)) == ["a", "b", "c"]


def test_none(sleepers: Sleepers) -> None:
    sleepers.lie_down("a")
    assert sleepers.notify(0) == []


def test_who_waited_long_enough_is_not_woken_for_another(sleepers: Sleepers) -> None:
    sleepers.lie_down("a")
    sleepers.lie_down("b", timeout=0.01)
    until = time.monotonic() + 20
    while not sleepers.woken and time.monotonic() < until:
        time.sleep(0.001)
    assert sleepers.woken == ["b"]
    assert sleepers.notify(1) == ["a"]


def test_what_is_there_is_not_waited_for(sleepers: Sleepers) -> None:
    with sleepers.lock:
        sleepers.there.wait_for(lambda: True)


def test_it_is_waited_for_until_it_is_there(sleepers: Sleepers) -> None:
    found: list[int] = []
    looks: list[int] = []

    def is_there() -> bool:
        looks.append(len(found))
        return bool(found)

    def wait() -> None:
        with sleepers.lock:
            sleepers.there.wait_for(is_there)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    for _ in range(2):
        until = time.monotonic() + 20
        seen = len(looks)
        while len(looks) == seen and time.monotonic() < until:
            sleepers.notify(1)
    assert thread.is_alive()
    found.append(1)
    sleepers.notify(1)
    thread.join(20)
    assert not thread.is_alive()
    assert looks[-1] == 1

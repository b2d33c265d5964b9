"""Runs say how far they are, and end when they are told to."""

from __future__ import annotations

import threading

import pytest

from mnemoscope.ui.runs import Progress, Run, Runs, Stopped


def test_what_a_run_comes_to() -> None:
    heard = threading.Event()

    def work(run: Run[int]) -> int:
        run.say("counting")
        run.tell(3, 10)
        heard.wait(10)
        return 42

    run = Run(work, "starting")
    seen = []
    for progress in run.steps():
        seen.append(progress)
        if progress == Progress("counting", 3, 10):
            heard.set()
    assert seen[-1] == Progress("counting", 3, 10)
    assert run.result() == 42


def test_what_it_raises_is_raised() -> None:
    def work(_: Run[int]) -> int:
        raise ValueError("no such thing")

    run = Run(work, "starting")
    list(run.steps())
    with pytest.raises(ValueError, match="no such thing"):
        run.result()


def _endless(run: Run[int]) -> int:
    done = 0
    while True:
        done += 1
        run.tell(done, 0)


def test_it_ends_where_it_says_how_far_it_is() -> None:
    runs, run = Runs(), Run(_endless, "for ever")
    runs.start("page", run)
    for _ in run.steps():
        runs.stop("another page")
        runs.stop("page")
    with pytest.raises(Stopped):
        run.result()
    runs.stop("page")  # which has none any more


def test_who_stops_asking_stops_it() -> None:
    run = Run(_endless, "for ever")
    steps = run.steps()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        run.result()


def test_a_page_has_one_at_a_time() -> None:
    runs, first = Runs(), Run(_endless, "for ever")
    runs.start("page", first)
    steps = first.steps()
    next(steps)
    runs.start("page", Run(_endless, "for ever"))
    list(steps)
    with pytest.raises(Stopped):
        first.result()

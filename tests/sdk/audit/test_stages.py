from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mnemoscope import InputError, MnemoscopeError, NumericsError, Setting
from mnemoscope.audit.journal import Job, Journal
from mnemoscope.audit.stages import Here, Stage, Workers, run

JOB = Job("1.0", Setting("b" * 64, "onnxruntime", "magnitude", 1, 4), "c" * 64, "d" * 64, None)
SQUARES = [(0, [0, 1, 4]), (1, [9, 16, 25]), (2, [36])]


@dataclass
class Log:
    """What was done in this process."""

    opened: int = 0
    closed: int = 0
    done: list[int] | None = None


def squares(log: Log, count: int = 7, stop: float = 99) -> Stage[int, int]:
    @contextmanager
    def opened() -> Iterator[Callable[[list[int]], list[int]]]:
        log.opened += 1
        log.done = []

        def work(items: list[int]) -> list[int]:
            if stop in items:
                raise NumericsError(f"{stop} is NaN. Check it.")
            assert log.done is not None
            log.done += items
            return [item * item for item in items]

        try:
            yield work
        finally:
            log.closed += 1

    return Stage("square", b"", "number", count, 3, lambda: iter(range(count)), int, opened)


def test_batches_are_done_in_order_and_kept(tmp_path: Path) -> None:
    log, steps = Log(), []
    with Journal.open(tmp_path / "j", JOB) as journal:
        found = run(squares(log), journal, Here(), progress=lambda *step: steps.append(step))
        assert list(found) == SQUARES
    assert (log.opened, log.closed, log.done) == (1, 1, [*range(7)])
    assert steps == [(0, 7), (3, 7), (6, 7), (7, 7)]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    log, told = Log(), []
    with Journal.open(tmp_path / "j", JOB) as journal:
        with pytest.raises(NumericsError) as caught:
            list(run(squares(log, stop=6), journal, Here()))
        assert str(caught.value) == (
            "6 is NaN. Check it. (Counted from number 6.) "
            f"What was done before is kept in {tmp_path / 'j'}."
        )
        assert log.closed == 1
        assert list(run(squares(log), journal, Here(), tell=told.append)) == SQUARES
        assert log.done == [6]
        assert told == [f"going on after 6 of 7 numbers in {tmp_path / 'j'}."]
        assert list(run(squares(log), journal, Here())) == SQUARES
        assert log.opened == 2  # nothing was left to do


class Shuffled:
    """Workers that are done when they are done."""

    def map(self, stage: Stage[Any, Any], batches: Iterator[tuple[int, list[Any]]]) -> Any:
        with stage.open() as work:
            found = [(number, work(items)) for number, items in batches]
        random.Random(1).shuffle(found)
        yield from found


def test_results_may_come_in_any_order(tmp_path: Path) -> None:
    workers: Workers = Shuffled()
    with Journal.open(tmp_path / "j", JOB) as journal:
        found = list(run(squares(Log()), journal, workers))
        assert found != SQUARES
        assert sorted(found) == SQUARES
        log = Log()
        assert list(run(squares(log), journal, Here())) == found
        assert log.opened == 0


def test_another_identity_is_another_stage(tmp_path: Path) -> None:
    """What was drawn from other seeds is not taken over, and does no harm."""
    log = Log()
    with Journal.open(tmp_path / "j", JOB) as journal:
        list(run(squares(log), journal, Here()))
        other = replace(squares(log), identity=b"another")
        for _ in range(2):
            assert list(run(other, journal, Here())) == SQUARES
        assert log.opened == 2


@pytest.mark.parametrize("count", [6, 8, 12])
def test_items_that_are_not_as_many_as_they_were(tmp_path: Path, count: int) -> None:
    changed = replace(squares(Log(), count), count=7)
    with Journal.open(tmp_path / "j", JOB) as journal, pytest.raises(InputError) as caught:
        list(run(changed, journal, Here()))
    assert "of 7 numbers were there to be done: what they are read from" in str(caught.value)


def test_a_journal_with_batches_of_another_size(tmp_path: Path) -> None:
    for number, size in ((0, 2), (3, 1), (2, 3)):
        with Journal.open(tmp_path / "j", JOB, restart=True) as journal:
            journal.append(squares(Log()).key, number, [1] * size)
            with pytest.raises(InputError, match=r"is damaged: a batch of square has"):
                list(run(squares(Log()), journal, Here()))


def test_a_stage_without_items(tmp_path: Path) -> None:
    log = Log()
    with Journal.open(tmp_path / "j", JOB) as journal:
        assert list(run(squares(log, 0), journal, Here())) == []
    assert log.opened == 0


def test_workers_that_fail_otherwise(tmp_path: Path) -> None:
    class Lost(Shuffled):
        def map(self, stage: Any, batches: Any) -> Any:
            yield next(super().map(stage, batches))
            raise MnemoscopeError("a node is gone")

    with Journal.open(tmp_path / "j", JOB) as journal:
        with pytest.raises(MnemoscopeError, match="a node is gone"):
            list(run(squares(Log()), journal, Lost()))
        log = Log()
        list(run(squares(log), journal, Here()))
        assert log.done is not None
        assert 0 < len(log.done) < 7

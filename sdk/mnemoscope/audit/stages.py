"""What is done with each of many items, in batches that a kill costs one of.

An audit has such stages: prompts are measured, pictures are described, captions are drawn. A stage
says what is to be done; workers do it, in this process or in others; the journal keeps what came
of each batch. Batches are cut here alone, since an engine's rounding may depend on them: whoever
does them, and in whatever order, the results are the same.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mnemoscope_runtime import BackendError, InputError, NumericsError

from ..prompts.printable import counted
from .journal import Journal

__all__ = ["Begins", "Here", "Progress", "Stage", "Workers", "attempt", "run"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Begins = Callable[[str, int], None]
Progress = Callable[[int, int], None]
Work = Callable[[list[Item]], list[Result]]


@dataclass(frozen=True, eq=False)
class Stage(Generic[Item, Result]):
    """What is to be done.

    Attributes:
        name: In the journal.
        identity: Whatever else has to be the same for results to be taken over, beyond the
            journal's job: seeds, a descriptor's name.
        unit: What an item is called in messages, "distinct prompt".
        count: How many items.
        size: How many make a batch; the last may have fewer.
        items: All, in order, from the beginning at every call.
        result: The type of a result, which msgspec can write and read.
        open: Makes what does the work, in the process that does it: it can be pickled if workers
            in other processes are to have it. One result for each item, in order.
        doing: What is done to the items, for people: "drawing captions".
    """

    name: str
    identity: bytes
    unit: str
    count: int
    size: int
    items: Callable[[], Iterator[Item]]
    result: type[Result]
    open: Callable[[], AbstractContextManager[Work[Item, Result]]]
    doing: str = ""

    @property
    def key(self) -> str:
        """Its name in the journal, with a digest of its identity."""
        return f"{self.name} {hashlib.sha256(self.identity).hexdigest()[:16]}"

    def expected(self, number: int) -> int:
        """How many results the batch of that number has; 0 if there is no such batch."""
        return max(0, min(self.size, self.count - number * self.size))

    def batches(self) -> Iterator[list[Item]]:
        """All batches, in order."""
        items = self.items()
        while batch := list(itertools.islice(items, self.size)):
            yield batch


class Workers(Protocol):
    """Who does the work of a stage."""

    def map(
        self, stage: Stage[Item, Result], batches: Iterator[tuple[int, list[Item]]]
    ) -> Iterator[tuple[int, list[Result]]]:
        """Do batches, each once; in any order.

        Args:
            stage: What is to be done.
            batches: Numbered, read no faster than they are done.

        Raises:
            MnemoscopeError: what the work raised (`attempt`).
        """


class Here:
    """This process does the work, one batch after the other."""

    def map(
        self, stage: Stage[Item, Result], batches: Iterator[tuple[int, list[Item]]]
    ) -> Iterator[tuple[int, list[Result]]]:
        """See `Workers`."""
        with stage.open() as work:
            for number, items in batches:
                yield number, attempt(work, items, stage.unit, number * stage.size)


def attempt(work: Work[Item, Result], items: list[Item], unit: str, first: int) -> list[Result]:
    """Do a batch; an error says where it is counted from.

    Args:
        work: What `Stage.open` made.
        items: The batch.
        unit: As in `Stage`.
        first: Which item of the stage is its first.

    Raises:
        InputError, NumericsError: the work raised it.
    """
    try:
        return work(items)
    except (InputError, NumericsError) as error:
        raise type(error)(f"{error} (Counted from {unit} {first:,}.)") from None


def run(
    stage: Stage[Item, Result],
    journal: Journal,
    workers: Workers,
    *,
    begins: Begins = lambda *_: None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[int, list[Result]]]:
    """The results of all batches: first those that the journal holds, then others as they come.

    Args:
        stage: What is to be done.
        journal: Where results are kept; a stage that it holds whole opens nothing.
        workers: Who does the rest.
        begins: Told what a stage does and how many items are left, if there are any.
        progress: Told how many items of how many are done.
        tell: Told what was taken over.

    Raises:
        InputError: the journal is damaged or cannot be written, or the work raised it.
        NumericsError: the work raised it.
        BackendError: workers cannot start, or die again and again.
    """
    kept, done = set(), 0
    for number, results in journal.read(stage.key, stage.result):
        if len(results) != stage.expected(number):
            raise journal.damaged(f"a batch of {stage.name} has {counted(len(results), 'result')}")
        kept.add(number)
        done += len(results)
        yield number, results
    if done:
        tell(f"going on after {done:,} of {counted(stage.count, stage.unit)} in {journal.path}.")
    if done < stage.count:
        begins(stage.doing, stage.count - done)
    progress(done, stage.count)
    if done == stage.count:
        return
    left = ((n, batch) for n, batch in enumerate(stage.batches()) if n not in kept)
    for number, results in _map(stage, left, workers, journal):
        journal.append(stage.key, number, results)
        done += len(results)
        progress(done, stage.count)
        yield number, results
    if done != stage.count:
        raise InputError(
            f"{done:,} of {counted(stage.count, stage.unit)} were there to be done: what they "
            "are read from was changed meanwhile. Audit it again."
        )


def _map(
    stage: Stage[Item, Result],
    batches: Iterator[tuple[int, list[Item]]],
    workers: Workers,
    journal: Journal,
) -> Iterator[tuple[int, list[Result]]]:
    try:
        yield from workers.map(stage, batches)
    except (BackendError, InputError) as error:
        raise type(error)(f"{error} What was done before is kept in {journal.path}.") from None

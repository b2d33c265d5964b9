"""Work that takes a while: it goes on in a thread, says how far it is, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Progress", "Run", "Runs", "Stopped"]

Result = TypeVar("Result")
_LOOK = 0.25  # seconds between two looks at how far it is


class Stopped(Exception):  # it is asked for, and no error
    """A run was stopped."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        doing: What it does.
        done: How much of that is done ...
        total: ... of how much; 0 if that is not known.
    """

    doing: str
    done: int = 0
    total: int = 0


class Run(Generic[Result]):
    """Does something in a thread.

    Args:
        work: Told the run, whose `say` and `tell` it calls now and then: there it is stopped.
        doing: What it does at first.
    """

    def __init__(self, work: Callable[[Run[Result]], Result], doing: str) -> None:
        self._work = work
        self._progress = Progress(doing)
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._result: list[Result] = []
        self._error: BaseException | None = None

    def say(self, doing: str) -> None:
        """What it does from now on.

        Raises:
            Stopped: it is to end.
        """
        self._progress = Progress(doing)
        self._check()

    def tell(self, done: int, total: int) -> None:
        """How much of that is done.

        Raises:
            Stopped: it is to end.
        """
        self._progress = Progress(self._progress.doing, done, total)
        self._check()

    def stop(self) -> None:
        """End it where it next says how far it is."""
        self._stopped.set()

    def steps(self) -> Iterator[Progress]:
        """Start it, and say again and again how far it is, until it ends.

        Whoever stops asking stops it.
        """
        thread = threading.Thread(target=self._do, name="mnemoscope-run", daemon=True)
        thread.start()
        try:
            last = None
            while not self._ended.wait(_LOOK if last else 0.01):
                if self._progress != last:
                    last = self._progress
                    yield last
        finally:
            self.stop()
            thread.join()

    def result(self) -> Result:
        """What came of it.

        Raises:
            Stopped: it was stopped.
            Exception: whatever the work raised.
        """
        if self._error is not None:
            raise self._error
        [found] = self._result
        return found

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _do(self) -> None:
        try:
            self._result.append(self._work(self))
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


class Runs:
    """The run that each page has going, if it has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going: dict[str, Run[object]] = {}

    def start(self, page: str, run: Run[Result]) -> Run[Result]:
        """Have a run; one that the page has going already is stopped."""
        with self._lock:
            before = self._going.pop(page, None)
            self._going[page] = run  # type: ignore[assignment]  # only `stop` is called
        if before is not None:
            before.stop()
        return run

    def stop(self, page: str) -> None:
        """Stop what a page has going, if anything."""
        with self._lock:
            run = self._going.pop(page, None)
        if run is not None:
            run.stop()

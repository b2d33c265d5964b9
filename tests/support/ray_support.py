"""What workers on a Ray cluster open in tests; they import it, so it can be pickled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mnemoscope import BackendUnavailable, Calibration, CalibrationFile, Detector, embedded
from mnemoscope.audit import RayWorkers, audit
from mnemoscope.audit.stages import Stage
from mnemoscope_runtime import InputError, NumericsError, Screener
from mnemoscope_runtime.testing import FakeBackend

Work = Callable[[list[int]], list[int]]
KILLS, WRONG, NAN, DEFECT = -1, -2, -3, -4  # items that are not squared


def squares(count: int, deaths: Path, *, size: int = 8, items: tuple[int, ...] = ()) -> Stage:
    """A stage of numbers that are squared, `items` among them.

    Args:
        count: How many.
        deaths: A folder, in which there is a file for each worker that may die.
        size: Of a batch.
        items: The first ones; the others are 0, 1, 2 and so on.
    """
    numbers = [*items, *range(count - len(items))]
    return Stage(
        "square", b"", "number", count, size, lambda: iter(numbers), int, partial(_open, deaths)
    )


@contextmanager
def _open(deaths: Path) -> Iterator[Work]:
    yield partial(_square, deaths)


def _square(deaths: Path, items: list[int]) -> list[int]:
    if KILLS in items and (left := sorted(deaths.iterdir())):
        left[0].unlink()
        time.sleep(0.2)  # so that what was done before has arrived
        os.kill(os.getpid(), signal.SIGKILL)
    if WRONG in items:
        raise InputError("It is wrong.")
    if NAN in items:
        raise NumericsError("It is NaN.")
    if DEFECT in items:
        raise KeyError("a defect")
    return [item * item for item in items]


@contextmanager
def cannot_open() -> Iterator[Work]:
    """Nothing to work with."""
    raise BackendUnavailable("There is no GPU.")
    yield


@contextmanager
def ids() -> Iterator[Work]:
    """The process that does it, which takes its time."""

    def work(items: list[int]) -> list[int]:
        time.sleep(0.05)
        return [os.getpid()] * len(items)

    yield work


@contextmanager
def ids_of_two(folder: Path) -> Iterator[Work]:
    """The process that does it, which begins when another is there too."""
    (folder / f"{os.getpid()}.here").touch()
    until = time.monotonic() + 60
    while len(list(folder.glob("*.here"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    with ids() as work:
        yield work


LOGS: dict[str, list[str]] = {}


@contextmanager
def logged(log: str, name: str) -> Iterator[Callable[[list[int]], list[int]]]:
    """Says in a log of this process when it is opened and closed."""
    LOGS[log].append(f"{name} opened")
    yield lambda items: items
    LOGS[log].append(f"{name} closed")


def detector(seconds: float = 0.0) -> Detector:
    """Scores that depend on the prompt alone, on the embedded bundle, and take their time."""
    backend = FakeBackend()
    run = backend._run

    def slow(*asked: object) -> object:
        time.sleep(seconds)
        return run(*asked)

    backend._run = slow
    found = Detector(Screener.open(embedded.BUNDLE, backend=backend))
    scores = {str(i): float(score) for i, score in enumerate(np.linspace(0, 0.9, 999))}
    known = Calibration.of(found.setting(), scores, fpr=0.05)
    found.calibration = CalibrationFile((known,))
    return found


def other(places: Path) -> Detector:
    """One calibration for the first that opens it, another for the others."""
    found = detector()
    try:
        places.mkdir()
    except FileExistsError:
        scores = {str(i): float(score) for i, score in enumerate(np.linspace(0, 1, 99))}
        found.calibration = CalibrationFile((Calibration.of(found.setting(), scores, fpr=0.05),))
    return found


def drive(address: str, prompts: str, output: str) -> None:
    """An audit on a cluster that runs, for a process that is killed in the midst of it."""
    with RayWorkers.start(address, count=1) as workers:
        audit(partial(detector, 0.05), prompts, output, workers=workers, tell=lambda _: None)

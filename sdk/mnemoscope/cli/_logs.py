"""What a service says of itself on stderr: a line for each thing that an operator looks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

__all__ = ["logged"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"
_HELD = 1000  # lines


@contextmanager
def logged() -> Iterator[Callable[[], None]]:
    """Log to stderr: of Mnemoscope all from INFO on, of libraries from WARNING on.

    Yields:
        What begins it. Until then lines are held, so that the first one that a service says is
        where it listens.
    """
    root, ours = logging.getLogger(), logging.getLogger("mnemoscope")
    stderr = logging.StreamHandler()
    stderr.setFormatter(logging.Formatter(_FORMAT, _TIME))
    held = MemoryHandler(_HELD, flushLevel=logging.CRITICAL, target=stderr)
    before = ours.level
    root.addHandler(held)
    ours.setLevel(logging.INFO)

    def begin() -> None:
        root.removeHandler(held)
        held.flush()
        root.addHandler(stderr)

    try:
        yield begin
    finally:
        ours.setLevel(before)
        root.removeHandler(held)
        root.removeHandler(stderr)
        held.close()  # says what is held still

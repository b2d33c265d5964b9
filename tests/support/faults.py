"""Faults of the file system, one at a time, as SQLite's tests have them.

Every call that changes a folder is counted while something is written there. Then it is written
again and again, and the k-th call fails, or the process ends in its place, until there is no k-th.
Writes themselves are the system's: a limit on the size of files refuses or kills them at a byte.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mnemoscope_export import publish

KILLED = 70
_CALLS: tuple[tuple[Any, str], ...] = (
    *((io, "open"), (builtins, "open"), (os, "open"), (os, "fsync"), (os, "rename")),
    *((os, "replace"), (os, "mkdir"), (os, "chmod"), (os, "unlink"), (os, "rmdir")),
    *((fcntl, "flock"), (publish, "_exchange")),
)
Write = Callable[[], object]


def calls(write: Write, root: Path) -> list[str]:
    """The names of the calls that it makes below `root`, in order."""
    made: list[str] = []
    with _counted(root, made.append):
        write()
    return made


@contextmanager
def failing(root: Path, call: int) -> Iterator[None]:
    """The call of that number fails, as on a full disk."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with _at(root, call, fail):
        yield


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file grows beyond that size, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed(write: Write, root: Path, *, call: int | None = None, size: int | None = None) -> bool:
    """Write in a fork that ends at a call, or when a file grows beyond a size; whether it did."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            if size is not None:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                with limited(size):
                    write()
            else:
                assert call is not None
                with _at(root, call, lambda: os._exit(KILLED)):
                    write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status != 0


@contextmanager
def _at(root: Path, number: int, do: Callable[[], object]) -> Iterator[None]:
    seen = 0

    def count(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number + 1:
            do()

    with _counted(root, count):
        yield


@contextmanager
def _counted(root: Path, told: Callable[[str], object]) -> Iterator[None]:
    """Every call that concerns what is below `root` is told before it is made."""

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(first: Any, *others: Any, **named: Any) -> Any:
            if _concerns(first, root) or "dir_fd" in named:
                told(name)
            return call(first, *others, **named)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for module, name in _CALLS:
            patch.setattr(module, name, watched(name, getattr(module, name)))
        yield


def _concerns(file: Any, root: Path) -> bool:
    if isinstance(file, int):
        file = Path(f"/proc/self/fd/{file}").readlink()
    return str(file).startswith(str(root))

"""A command in a child of its process, where a library may end it with a code that it did not mean.

Ray ends the process that is connected to it with code 1 when its own process on that machine is
gone. Ours says with 1 that something is flagged. No handler sees such an end; a parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import typer

__all__ = ["supervised"]

_PARENT_DIED = 1  # PR_SET_PDEATHSIG


def supervised(otherwise: str) -> Callable[[], None]:
    """Go on in a child; this process waits for it and ends as it does.

    Args:
        otherwise: The error if the child ends with 0 or 1 and has not said before that it may:
            the code is 3 then.

    Returns:
        In the child: says that it may. Where there is no fork nobody listens.
    """
    if not hasattr(os, "fork"):
        return lambda: None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reads, writes = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(writes)
        _wait(child, reads, otherwise)
    os.close(reads)
    os.setpgid(0, 0)  # so that a terminal's signals come once
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(3)
    return partial(_say, writes)


def _say(writes: int) -> None:
    os.write(writes, b".")


def _wait(child: int, reads: int, otherwise: str) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code, said = os.waitstatus_to_exitcode(status), os.read(reads, 1)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code in (0, 1) and not said:
        typer.echo(f"error: {otherwise}", err=True)
        code = 3
    os._exit(code)

"""Reading files in a fork with limits, so that what hangs or ends a process is only a finding."""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import struct
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NoReturn

__all__ = ["BYTES", "SECONDS", "Outcome", "run"]

SECONDS = 20  # for one file
BYTES = 2 * 2**30  # beyond what was mapped at first


@dataclass(frozen=True)
class Outcome:
    """What became of a fork.

    Attributes:
        tried: How many files were read, one that is a finding included.
        accepted: How many of them were not refused.
        finding: What the last one did that it may not, or None.
    """

    tried: int
    accepted: int
    finding: str | None


def run(
    ready: Callable[[], Callable[[int], bool]], numbers: Iterable[int], seconds: int = SECONDS
) -> Outcome:
    """Read files in a fork until one of them is a finding.

    Args:
        ready: Makes what reads the file of a number, and says whether it was accepted.
        numbers: Of the files.
        seconds: How long one may take.
    """
    counts = mmap.mmap(-1, 16)
    with TemporaryFile() as said:
        pid = os.fork()
        if not pid:
            _read(ready, numbers, seconds, counts, said)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        text = said.read()[-10_000:].decode(errors="replace")
    tried, accepted = struct.unpack("qq", counts[:])
    if code == 0:
        return Outcome(tried, accepted, None)
    how = f"exit status {code}" if code > 0 else signal.Signals(-code).name
    return Outcome(tried, accepted, f"{text}\nThe process ended with {how}.")


def _read(
    ready: Callable[[], Callable[[int], bool]],
    numbers: Iterable[int],
    seconds: int,
    counts: mmap.mmap,
    said: IO[bytes],
) -> NoReturn:
    code, accepted = 1, 0
    try:
        os.dup2(said.fileno(), 2)  # what native code says, too
        # a handler's frame may not fit its stack, if registers are wide: that would be a SIGSEGV
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        read = ready()
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for tried, number in enumerate(numbers, 1):
            counts[:] = struct.pack("qq", tried, accepted)
            signal.alarm(seconds)  # ends the process also where native code holds the interpreter
            accepted += read(number)
        counts[8:] = struct.pack("q", accepted)
        code = 0
    except BaseException:  # a panic is no Exception
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)

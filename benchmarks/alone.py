"""A call in a process of its own, whose memory nothing else has used."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["alone", "peak"]

P = ParamSpec("P")
Result = TypeVar("Result")


def alone(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What the call returns, and raises; its process is gone then.

    Raises:
        BrokenProcessPool: the process was killed, as by a system that is out of memory.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(work, *args, **kwargs).result()


def peak() -> int:
    """The most memory that this process has held so far, in bytes; on Linux alone.

    Not what `resource.getrusage` says, which counts in what the process that started it held.
    """
    status = Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024

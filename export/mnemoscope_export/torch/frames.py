"""Room for Python's frames, which an exporter calls by the hundred million.

CPython keeps frames in chunks of 16 KiB, and gives a chunk back as soon as its first frame ends. A
loop whose calls begin just at the end of one maps memory and unmaps it with every call, so that the
same export takes twice as long from one caller as from another. Below a frame that is larger than a
chunk there is a larger chunk, and no border that a loop could meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["with_room"]

Result = TypeVar("Result")


def with_room(call: Callable[[], Result]) -> Result:
    """What the call returns, and raises. Its frames have half a MiB, and then chunks as ever."""
    return call()


# just over 512 KiB of 8-byte slots: the chunk is 1 MiB then, and the rest of it is below
with_room.__code__ = with_room.__code__.replace(co_stacksize=2**16 + 2**10)

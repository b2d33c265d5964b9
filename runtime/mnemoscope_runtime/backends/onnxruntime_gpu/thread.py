"""A thread that does the work of all others, one after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ...errors import BackendError
from ..base import OwnProcess

__all__ = ["OneThread"]

Result = TypeVar("Result")


class OneThread:
    """Runs every call on the same thread of its own.

    A library may keep things by thread, as ONNX Runtime does with CUDA graphs: every thread that
    runs a session records and keeps graphs, and memory for them, of its own.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._process = OwnProcess(self)

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises. Ctrl-C ends the wait; what has begun is finished there.

        Raises:
            BackendError: the thread is closed, or is one of the process that this was forked from.
        """
        self._process.check()
        try:
            future: Future[Result] = self._pool.submit(work)
        except RuntimeError:
            raise BackendError("This engine is closed. Open the bundle again.") from None
        try:
            while not wait([future], timeout=1).done:  # a signal does not always end a wait
                pass
            return future.result()
        except BaseException:
            future.cancel()  # if it has not begun
            raise

    def close(self) -> None:
        """Wait until everything is done, and end the thread; further calls raise."""
        if self._process.here:
            self._pool.shutdown()

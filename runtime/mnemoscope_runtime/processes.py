"""What was opened in one process must not be used, or taken down, in a child of it.

A fork copies memory and no threads but the one that forked. An engine whose threads are gone waits
for them: ONNX Runtime crashes when it is taken down in the child, even if the child never used it,
and OpenVINO never returns. So what is opened is watched; in a child it is kept forever instead of
being taken down, and whoever uses it is told.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from functools import cache

from .errors import BackendError

__all__ = ["OwnProcess"]


class OwnProcess:
    """The process that opened something.

    Args:
        owner: What it opened, which holds everything that must not be taken down elsewhere.
    """

    def __init__(self, owner: object) -> None:
        self._pid = os.getpid()
        _watch(owner)

    @property
    def here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise BackendError in any other process."""
        if not self.here:
            raise BackendError(
                f"This was opened in process {self._pid} and is used in {os.getpid()}, a fork of "
                "it: the engines' threads are not copied. Open it after the fork, in every worker "
                '(docs/backends.md, "Processes"), or start workers by spawning.'
            )


_open: weakref.WeakSet[object] = weakref.WeakSet()  # of this process and those it was forked from


def _watch(owner: object) -> None:
    _register()
    _open.add(owner)


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=_keep)


def _keep() -> None:
    """In the child of a fork: hold what is open until the process is gone, its end included."""
    for owner in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))

"""What every backend is: it makes an engine of a graph once, keeps it, and lets go of it.

All in one process. A fork copies memory and no threads but the one that forked. An engine whose
threads are gone waits for them: ONNX Runtime crashes when it is taken down in the child, even if
the child never used it, and OpenVINO never returns. So what is opened is watched; in a child it is
kept forever instead of being taken down, and whoever uses it is told.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..closing import Closing
from ..errors import BackendError
from ..wording import counted

__all__ = ["Arrays", "Backend", "Engine", "OwnProcess", "run"]

Arrays = Mapping[str, NDArray[Any]]
"""What engines take and return: arrays by name."""
_EXPORT = "Export the model again; mend the backend if it is your own."


class Engine(Protocol):
    """A graph that is ready to run. Engines may be called from several threads at once."""

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """Run the graph and return the named outputs, in that order.

        Raises:
            BackendError: the inputs are not the graph's, or what runs it failed.
        """
        ...


def run(
    engine: Engine, inputs: Arrays, outputs: Mapping[str, tuple[int | None, ...]]
) -> list[NDArray[np.float32]]:
    """Run a graph, and take what it returns for what it should be or for nothing.

    Args:
        engine: The graph.
        inputs: By name.
        outputs: The shape of each that is wanted, by name; None where any size will do.

    Returns:
        Those outputs, in that order: float32, of these shapes, and not checked for NaN.

    Raises:
        BackendError: the engine failed, or returned something else. Nothing is cast: who rounds to
            another type, or counts, has not computed what it was asked for.
    """
    found = engine(inputs, tuple(outputs))
    if not isinstance(found, (list, tuple)) or len(found) != len(outputs):
        several = isinstance(found, (list, tuple))
        what = counted(len(found), "array") if several else type(found).__name__
        raise BackendError(f"The engine returned {what} for {', '.join(outputs)}. {_EXPORT}")
    for value, (name, shape) in zip(found, outputs.items(), strict=True):
        if type(value) is not np.ndarray or value.dtype != np.float32 or not _fits(value, shape):
            what = type(value).__name__
            if isinstance(value, np.ndarray):
                what += f" of {value.dtype} {value.shape}"
            wanted = str(tuple(shape)).replace("None", "any")
            raise BackendError(
                f"The engine returned {what} as {name}, expected float32 {wanted}. {_EXPORT}"
            )
    return list(found)


def _fits(value: NDArray[Any], shape: tuple[int | None, ...]) -> bool:
    return value.shape == shape or (
        value.ndim == len(shape)
        and all(size in (None, found) for found, size in zip(value.shape, shape, strict=True))
    )


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


class Backend(Closing):
    """Runs the graphs of bundles, in the process that opened it.

    One of your own derives this class, has a name and says how to `make_engine`; if it has an
    `__init__`, that begins with `super().__init__()`. docs/backends.md shows one.

    Attributes:
        name: What `open_backend` calls it, with the precision if that is not the graph's own;
            detections and calibrations bear it.
        cuts_calls: Whether its engines cut calls to sizes of their own: they are then handed more
            at once than would suit a CPU.
        takes_any_length: Whether they read any number of tokens, where the bundle does.
        process: The process that opened it; engines say `process.check()` when they are called.
        closing: What `close` does besides, the last first: `closing.callback(free, memory)`.
    """

    name: str
    cuts_calls: bool = False
    takes_any_length: bool = True

    def __init__(self) -> None:
        self.process = OwnProcess(self)
        self.closing = ExitStack()
        self._engines: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        """Make an engine from the verified bytes of a graph (`Bundle.read`).

        Only one is made at a time. It keeps nothing of the bundle's memory.

        Args:
            bundle: Where the graph and its weights come from.
            graph: One of the bundle's `manifest.graphs`: "screen", "taps", "step" or
                "text_encoder" (docs/bundle.md has their inputs and outputs).
        """

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """The engine of a graph: made when it is first asked for, and the same from then on.

        Raises:
            BackendError: the backend cannot be used, or not with this graph; or this process is a
                fork of the one that opened it.
        """
        self.process.check()
        key = bundle.id, graph
        with self._lock:
            if key not in self._engines:
                if graph == "step" and bundle.manifest.any_length and not self.takes_any_length:
                    raise BackendError(
                        f"{self.name} is built for one number of tokens, and this bundle takes "
                        "any. Export the model without --any-length for GPUs."
                    )
                self._engines[key] = self.make_engine(bundle, graph)
                bundle.release()  # the engine has its own copy of the weights
            return self._engines[key]

    def close(self) -> None:
        """Let go of every engine, once running calls are done; in a fork nothing is taken down."""
        if self.process.here:
            with self._lock:
                self._engines.clear()
                self.closing.close()


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

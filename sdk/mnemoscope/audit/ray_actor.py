"""What a worker on a Ray cluster does, in a process that Ray started."""

from __future__ import annotations

import pickle
import platform
from contextlib import ExitStack
from typing import Any

from mnemoscope_runtime import BackendUnavailable, MnemoscopeError, __version__

from .stages import attempt

__all__ = ["Actor"]


class Actor:
    """A worker. It has one stage open at a time; errors of ours are what it returns."""

    def __init__(self) -> None:
        self._stage: int | None = None
        self._opens = b""
        self._opened = ExitStack()
        self._work: Any = None

    def begin(self, version: str, stage: int, opens: bytes) -> MnemoscopeError | None:
        """Why it cannot be used, or None.

        Args:
            version: The driver's; what is pickled by another one is not read.
            stage: Its number; what was open for another one is closed.
            opens: `Stage.open`, pickled: for the first batch.
        """
        if version != __version__:
            return BackendUnavailable(
                f"The node {platform.node()} has Mnemoscope {__version__}, the driver {version}. "
                "Install the same version on all."
            )
        if stage != self._stage:
            self._opened.close()
            self._stage, self._opens, self._work = stage, opens, None
        return None

    def do(
        self, stage: int, items: list[Any], unit: str, first: int
    ) -> list[Any] | MnemoscopeError | None:
        """The results of a batch, the error that ends the audit, or None if it has not begun.

        Args:
            stage: As told to `begin`; Ray may have started the actor again since.
            items: The batch.
            unit: As of `attempt`.
            first: Likewise.
        """
        if stage != self._stage:
            return None
        try:
            if self._work is None:
                self._work = self._opened.enter_context(pickle.loads(self._opens)())
            return attempt(self._work, items, unit, first)
        except MnemoscopeError as error:
            return type(error)(f"{error} (On the node {platform.node()}.)")
        except ImportError as error:
            return BackendUnavailable(
                f"The node {platform.node()} cannot import what the audit needs: {error}. Install "
                "it on every node."
            )

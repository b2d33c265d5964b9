"""Detections of prompts that come again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from mnemoscope_runtime.errors import InputError

from ..screening.detection import Detection

__all__ = ["Memory"]


class Memory:
    """The detections that were wanted last. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        """Keep at most so many: 0 for none.

        Raises:
            InputError: that is no number of detections.
        """
        if type(most) is not int or most < 0:
            raise InputError(f"cache is {most!r:.40}. Give a whole number, or 0 to keep nothing.")
        self._most = most
        self._known: OrderedDict[Hashable, Detection] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, key: Hashable) -> Detection | None:
        """What was kept under a key."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def keep(self, key: Hashable, detection: Detection) -> None:
        """Keep a detection in place of the one that was not wanted for longest."""
        with self._lock:
            self._known[key] = detection
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def forget(self) -> None:
        """Keep nothing of what was."""
        with self._lock:
            self._known.clear()

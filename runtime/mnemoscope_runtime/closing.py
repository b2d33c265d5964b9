"""What is opened is closed: by `with`, or by `close`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """Has a `close`, which the end of a `with` calls, whatever happened in it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

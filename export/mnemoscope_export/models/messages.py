"""Words that several errors are made of."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_line", "shown"]

_SHOWN = 4


def shown(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def first_line(error: Exception) -> str:
    """Of an error of another library, as a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."

"""Prompts as text to show: they are hostile input."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, width: int | None = None) -> str:
    """Text that cannot move the cursor or hide anything, cut to `width` if there is one."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if width is None or len(safe) <= width else safe[: max(1, width - 1)] + "…"

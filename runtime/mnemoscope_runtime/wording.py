"""What messages have in common."""

from __future__ import annotations

__all__ = ["counted", "pip_install"]

_CONSTRAINTS = {"ui": "constraints-ui.txt"}  # an environment of its own: docs/ui.md


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things.

    Args:
        number: How many.
        one: What one is called.
        many: What several are; by default the same with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def pip_install(extras: str) -> str:
    """The command that installs extras, and where: no index has the package.

    Args:
        extras: Their names, with commas.
    """
    pinned = _CONSTRAINTS.get(extras, "constraints.txt")
    return f"`pip install -c {pinned} '.[{extras}]'` in a copy of the repository"

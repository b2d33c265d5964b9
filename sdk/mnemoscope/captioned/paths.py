"""Paths that a data set names: none leaves its folder."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

from ..prompts import Broken
from .spots import InFile

__all__ = ["SUFFIXES", "found_inside", "is_picture"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def is_picture(name: str) -> bool:
    """Whether a name ends like that of a picture."""
    return name.lower().endswith(SUFFIXES)


def found_inside(root: Path, name: str) -> InFile | Broken:
    """The file of that name in a folder or below it, or why it is none.

    Args:
        root: The folder, with its links followed (`Path.resolve`).
        name: A path from there, or a whole one that lies there. Links may lead elsewhere in the
            folder, not out of it.
    """
    if ".." in (*PurePath(name).parts, *PurePosixPath(name).parts):
        return _outside(root, name)
    try:
        real = (root / name).resolve(strict=True)
        there = real.is_file()
    except (OSError, ValueError, RuntimeError):  # a NUL; links in a circle
        there = False
    whole = Path(name).is_absolute()
    if there and real.is_relative_to(root):
        return InFile(str(root), str(real.relative_to(root)) if whole else name)
    if there or whole:
        return _outside(root, name)
    return Broken(
        "its picture does not exist",
        f"{name[:200]!r} does not exist in {root}. Add it, or remove the row.",
    )


def _outside(root: Path, name: str) -> Broken:
    return Broken(
        "its picture is outside of the folder",
        f"{name[:200]!r} is outside of {root}. Use paths inside of the folder.",
    )

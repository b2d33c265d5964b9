"""Captions that are files of their own."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..prompts import Broken
from ..prompts.records import checked
from .paths import found_inside

__all__ = ["LONGEST", "as_caption", "caption_of"]

LONGEST = 2**20  # bytes


def caption_of(root: Path, file: Path) -> str | Broken:
    """What a text file says, without white space around it; or why that is no caption.

    Args:
        root: The folder that it may not leave by a link, resolved.
        file: The file, below it.
    """
    spot = found_inside(root, str(file.relative_to(root)))
    if isinstance(spot, Broken):
        return Broken(
            "its text file is not in the folder",
            f"the caption's file {file.name} does not exist or is a link out of the folder. Put "
            "the text there.",
        )
    try:
        with file.open("rb") as opened:
            return as_caption(opened.read(LONGEST + 1))
    except OSError as error:
        return Broken(
            "its text file cannot be read",
            f"the caption's file {file.name} cannot be read: {error.strerror or error}.",
        )


def as_caption(content: bytes) -> str | Broken:
    """Bytes as a caption, without white space around it; or why they are none."""
    if len(content) > LONGEST:
        return Broken(
            f"longer than {LONGEST:,} bytes",
            f"a caption of more than {LONGEST:,} bytes. Cut it.",
        )
    if b"\0" in content:
        return Broken(
            "not text: it holds a NUL",
            "a caption with a NUL byte, so it is no text in UTF-8 (UTF-16?). Save it as UTF-8.",
        )
    plain = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return checked(plain.strip())

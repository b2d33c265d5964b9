"""Pictures side by side, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..outputs import writing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENDINGS", "write_sheet"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ENDINGS = tuple(_FORMATS)


def write_sheet(path: Path, pictures: Sequence[Image]) -> None:
    """Write pictures, from left to right.

    Args:
        path: A file with one of the `ENDINGS`.
        pictures: One or more, as high as the first.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL import Image

    sheet = Image.new("RGB", (sum(each.width for each in pictures), pictures[0].height))
    left = 0
    for each in pictures:
        sheet.paste(each, (left, 0))
        left += each.width
    with writing(path) as file:
        sheet.save(file, _FORMATS[path.suffix.lower()])

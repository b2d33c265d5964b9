"""Pictures read from where they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime.closing import Closing

from ..prompts import Broken
from .cells import Cells
from .decoding import BYTES, decode, too_large
from .paths import found_inside
from .spots import InFile, InParquet, InTar, Spot

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PictureReader"]


class PictureReader(Closing):
    """Reads pictures, best in the order of their rows. A context manager.

    Of Parquet the last file stays open, since a cell is found by reading those before it.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._cells: tuple[str, str, Cells] | None = None

    def read(self, spot: Spot) -> Image | Broken:
        """A picture in RGB, or why it cannot be read.

        Raises:
            InputError: a Parquet file is damaged.
            BackendUnavailable: Pillow or pyarrow is not installed.
        """
        found = self._content(spot)
        return found if isinstance(found, Broken) else decode(found)

    def close(self) -> None:
        """Close what is open."""
        if self._cells is not None:
            self._cells[2].close()
        self._cells = None

    def _content(self, spot: Spot) -> bytes | Broken:
        if isinstance(spot, InParquet):
            found = self._column(spot).read(spot.group, spot.row)
            return self._content(found) if isinstance(found, InFile) else found
        try:
            if isinstance(spot, InTar):
                return _part(spot)
            again = found_inside(Path(spot.root), spot.path)  # links may have been changed
            return _whole(Path(spot.root) / spot.path) if isinstance(again, InFile) else again
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}. Make it readable, or remove it."
            return Broken("its picture cannot be read", why)

    def _column(self, spot: InParquet) -> Cells:
        if self._cells is None or self._cells[:2] != (spot.file, spot.column):
            self.close()
            self._cells = spot.file, spot.column, Cells(Path(spot.file), spot.column)
        return self._cells[2]


def _whole(path: Path) -> bytes | Broken:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return too_large(size) if size > BYTES else file.read(BYTES + 1)


def _part(spot: InTar) -> bytes | Broken:
    with Path(spot.file).open("rb") as file:
        file.seek(spot.start)
        found = file.read(spot.size)
    if len(found) < spot.size:
        return Broken("its picture is cut short", f"{spot.file} ends inside of it. Fetch it again.")
    return found

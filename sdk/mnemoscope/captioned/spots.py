"""What a row of a captioned set is: a caption, and where its picture lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..prompts import Broken

__all__ = ["Captioned", "InFile", "InParquet", "InTar", "Spot"]


@dataclass(frozen=True, slots=True)
class InFile:
    """A file of its own.

    Attributes:
        root: The folder that its path may not leave.
        path: From there.
    """

    root: str
    path: str


@dataclass(frozen=True, slots=True)
class InTar:
    """A member of a tar file.

    Attributes:
        file: The tar file.
        start: Byte that it begins at.
        size: Bytes.
    """

    file: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class InParquet:
    """A cell of a Parquet file: bytes, or a struct of bytes and path.

    Attributes:
        file: The Parquet file.
        column: Its column.
        group: Its row group, from 0.
        row: In the group, from 0.
    """

    file: str
    column: str
    group: int
    row: int


Spot = InFile | InTar | InParquet
"""Where a picture lies: a file of its own, a member of a tar file, a cell of Parquet."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """A row: a caption and its picture.

    Attributes:
        where: Its line, row or name, in words.
        caption: The caption, or why there is none.
        picture: Where the picture lies, or why there is none.
        file: The tar or Parquet file that holds the row; None where pictures are files.
        name: What the set calls the picture, whether it can be read or not: its path from the
            folder or as the table gives it, the key of a WebDataset sample; None if nothing.
    """

    where: str
    caption: str | Broken
    picture: Spot | Broken
    file: str | None = None
    name: str | None = None

    @property
    def place(self) -> tuple[str | None, str | None]:
        """File and name as tables can hold them: bytes of a name that are no UTF-8 spelled out."""
        return _text(self.file), _text(self.name)

    @property
    def called(self) -> str:
        """Its picture for people: the file's own name and the picture's, else where the row is."""
        if self.name is None:
            return self.where
        return self.name if self.file is None else f"{Path(self.file).name}, {self.name}"


def _text(name: str | None) -> str | None:
    return None if name is None else name.encode("utf-8", "backslashreplace").decode()

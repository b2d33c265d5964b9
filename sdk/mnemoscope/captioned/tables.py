"""Tables whose rows have a caption and a picture, or the path of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mnemoscope_runtime.errors import InputError

from ..prompts import Broken, Wanted, prompt_column, read_records
from .cells import cell_spots
from .paths import found_inside
from .spots import Captioned, InFile

__all__ = ["PathTable", "PictureTable"]

_HOW = "Name a column of paths, or the folder of the pictures, with --images."


@dataclass(frozen=True)
class PathTable:
    """Tables with a column of paths.

    Attributes:
        path: As it was given.
        files: The tables, in order.
        pictures: Name of the column of paths.
        root: The folder that paths start from and may not leave; None for each table's own.
        column: Name of the column of captions; see `prompt_column`.
        quotes: As in `read_prompt_file`.
    """

    path: Path
    files: tuple[Path, ...]
    pictures: str
    root: Path | None = None
    column: str | None = None
    quotes: bool = True

    def rows(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
        """Every row.

        Args:
            tell: Told what was read.

        Raises:
            InputError: as `read_records`.
            BackendUnavailable: a Parquet file, and pyarrow is not installed.
        """
        wanted = Wanted(
            "picture",
            (self.pictures,),
            _HOW if self.root else f"{self.pictures} is no folder either. {_HOW}",
        )
        columns = prompt_column(self.column), wanted
        for file in self.files:
            root = (self.root or file.parent).resolve()
            for record in read_records(file, columns, quotes=self.quotes, tell=tell):
                caption, name = record.cells
                spot = name if isinstance(name, Broken) else found_inside(root, name)
                given = (name.text or None) if isinstance(name, Broken) else name
                known = spot.path if isinstance(spot, InFile) else given
                yield Captioned(f"{file}, {record.where}", caption, spot, name=known)


@dataclass(frozen=True)
class PictureTable:
    """Parquet files with a column of pictures.

    Attributes:
        path: As it was given.
        files: The tables, in order.
        pictures: Name of the column of pictures.
        column: Name of the column of captions; see `prompt_column`.
    """

    path: Path
    files: tuple[Path, ...]
    pictures: str
    column: str | None = None

    def rows(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
        """Every row; see `PathTable.rows`. Pictures are not read."""
        for file in self.files:
            spots = cell_spots(file, self.pictures)
            columns = (prompt_column(self.column),)
            for record in read_records(file, columns, tell=tell):
                spot = next(spots, None)
                if spot is None:
                    raise InputError(
                        f"{file} is damaged: it has more captions than rows. Write it again."
                    )
                where = f"{file}, {record.where}"
                yield Captioned(where, record.cells[0], spot, file=spot.file)

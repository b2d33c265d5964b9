"""Folders of pictures, as fine-tuning scripts and `datasets` read them.

A `metadata.jsonl`, `metadata.csv` or `metadata.parquet` names the pictures of its folder and of
those below in a column "file_name"; where there is none, every picture has a text file beside it:
`cat.jpg`, `cat.txt`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mnemoscope_runtime.errors import InputError

from ..prompts import Broken, Wanted, prompt_column, read_records
from ..prompts.printable import counted
from .captions import caption_of
from .paths import SUFFIXES, found_inside, is_picture
from .spots import Captioned, InFile

__all__ = ["FILE_NAME", "METADATA", "Folder"]

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_NAME = Wanted("picture", ("file_name",), 'Call the column of the paths "file_name".')


@dataclass(frozen=True)
class Folder:
    """A folder of captioned pictures.

    Attributes:
        path: The folder.
        column: Key or column of metadata that holds the caption; see `prompt_column`.
        quotes: Of metadata in CSV, as in `read_prompt_file`.
    """

    path: Path
    column: str | None = None
    quotes: bool = True

    def rows(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
        """Every picture, folder by folder in the order of names; rows of metadata as they stand.

        Args:
            tell: Told what was read, and what was left out.

        Raises:
            InputError: a folder or its metadata cannot be read, or it has metadata of two kinds.
        """
        root = self.path.resolve()
        described: set[Path] = set()
        pictures = rows = beside = 0  # the first two of folders with metadata
        for folder, names in self._folders(tell):
            found = [name for name in METADATA if name in names]
            if len(found) > 1:
                raise InputError(
                    f"{folder} has {' and '.join(found)}, so nobody knows which holds. Keep one."
                )
            if found:
                described.add(folder)
                for row in self._listed(folder, found[0], tell):
                    rows += 1
                    yield row
            if described.isdisjoint((folder, *folder.parents)):
                for row in self._beside(folder, names, root):
                    beside += 1
                    yield row
            else:
                pictures += sum(map(is_picture, names))
        if not (beside or described):
            raise InputError(
                f"{self.path} holds no pictures ({', '.join(SUFFIXES)}), no metadata "
                f"({', '.join(METADATA)}) and no tar or Parquet files. Give a folder with some."
            )
        if beside:
            tell(f"{self.path}: {counted(beside, 'picture')} without metadata.")
        if pictures > rows:
            tell(
                f"{self.path} holds {counted(pictures, 'picture')} and metadata for {rows:,}: "
                f"{pictures - rows:,} or more are not read."
            )

    def unlisted(self) -> list[Path]:
        """Pictures that the metadata of their folder, or of the nearest above, does not name."""
        described: dict[Path, set[Path]] = {}
        missing: list[Path] = []
        for folder, names in self._folders():
            if found := next((name for name in METADATA if name in names), None):
                spots = (row.picture for row in self._listed(folder, found))
                described[folder] = {
                    folder / spot.path for spot in spots if isinstance(spot, InFile)
                }
            above = next((each for each in (folder, *folder.parents) if each in described), None)
            if above is not None:
                pictures = (folder / name for name in names if is_picture(name))
                missing += [each for each in pictures if each not in described[above]]
        return missing

    def _folders(
        self, tell: Callable[[str], None] = lambda _: None
    ) -> Iterator[tuple[Path, list[str]]]:
        """Each folder and the names of its files, sorted."""

        def refuse(error: OSError) -> None:
            raise InputError(
                f"{error.filename} cannot be read: {error.strerror}. Let it be read, or remove it."
            )

        for here, folders, files in os.walk(self.path.resolve(), onerror=refuse):
            for name in (name for name in folders if Path(here, name).is_symlink()):
                tell(f"{Path(here, name)} is a link to a folder: what is behind it is not read.")
            folders.sort()  # links are not followed
            yield Path(here), sorted(files)

    def _listed(
        self, folder: Path, name: str, tell: Callable[[str], None] = lambda _: None
    ) -> Iterator[Captioned]:
        columns = prompt_column(self.column), FILE_NAME
        quotes = self.quotes or not name.endswith(".csv")
        for record in read_records(folder / name, columns, quotes=quotes, tell=tell):
            caption, picture = record.cells
            spot = picture if isinstance(picture, Broken) else found_inside(folder, picture)
            where = f"{folder / name}, {record.where}"
            yield Captioned(where, caption, spot, name=self._name(folder, picture))

    def _beside(self, folder: Path, names: list[str], root: Path) -> Iterator[Captioned]:
        known = set(names)
        for name in filter(is_picture, names):
            spot = found_inside(root, str((folder / name).relative_to(root)))
            text = f"{Path(name).stem}.txt"
            caption: str | Broken
            if text in known:
                caption = caption_of(root, folder / text)
            else:
                caption = Broken(
                    "no caption: no text file beside the picture, and no metadata",
                    f"a picture without a caption: there is none of {', '.join(METADATA)}, nor a "
                    f"text file of the same name. Write {text}, or remove the picture.",
                )
            yield Captioned(str(folder / name), caption, spot, name=self._name(folder, name))

    def _name(self, folder: Path, picture: str | Broken) -> str | None:
        """The path of a picture from the folder of the set, whether it is there or not."""
        if isinstance(picture, Broken):
            return picture.text or None
        whole, root = folder / picture, self.path.resolve()
        return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()

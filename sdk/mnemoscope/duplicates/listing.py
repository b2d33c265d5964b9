"""The list of what to train on, and what to leave out since another row has the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from mnemoscope_runtime.errors import InputError

from ..captioned import Captioned, CaptionedSet
from ..captioned.spots import InFile, InParquet, InTar
from ..tables import Columns, write_table
from .repeats import Repeats

__all__ = ["COLUMNS", "write_list"]

COLUMNS: Columns = MappingProxyType(
    {
        **{"row": int, "file": str, "name": str, "keep": bool, "same_as": int},
        **{"similarity": float, "picture_times": int, "caption_times": int},
    }
)


def write_list(path: Path, captioned: CaptionedSet, repeats: Repeats, remedy: str = "") -> None:
    """Write which rows to keep: of each group of pictures that are one, the first.

    One row for each of the set, in its order:

    - `row`: counted from 1.
    - `file`, `name`: of a folder, the path of the picture in it is the name; of a tar file, its
      samples' key; of Parquet files there is no name. File is the tar or Parquet file.
    - `keep`: false if a row before it has the same picture; null if its picture cannot be read.
    - `same_as`, `similarity`: the row that is kept in its place, and the cosine of both pictures.
    - `picture_times`, `caption_times`: how many rows have that picture, and that caption.

    Args:
        path: `.jsonl`, `.csv` or `.parquet`.
        captioned: The set.
        repeats: What it holds more than once.
        remedy: What to do if the file cannot be written.

    Raises:
        InputError: it cannot be written, or the set was changed meanwhile.
    """
    write_table(path, COLUMNS, _rows(captioned, repeats), remedy)


def _rows(captioned: CaptionedSet, repeats: Repeats) -> Iterator[tuple[object, ...]]:
    pictures, captions = repeats.picture_times, repeats.caption_times
    count = 0
    for row, each in enumerate(captioned.rows()):
        count += 1
        if count > len(pictures):
            break
        kept, similarity = int(repeats.picture[row]), float(repeats.similarity[row])
        dropped = kept not in (-1, row)
        yield (
            row + 1,
            *_name(each, captioned.path),
            None if kept < 0 else not dropped,
            kept + 1 if dropped else None,
            similarity if dropped else None,
            int(pictures[row]) or None,
            int(captions[row]) or None,
        )
    if count != len(pictures):
        raise InputError(
            f"{captioned.path} was changed while it was read: it had {len(pictures):,} rows. Begin "
            "again."
        )


def _name(row: Captioned, path: Path) -> tuple[str | None, str | None]:
    """The file that holds a picture, and its name in there."""
    spot = row.picture
    if isinstance(spot, InFile):
        whole, root = Path(spot.root, spot.path), path.resolve()
        inside = path.is_dir() and whole.is_relative_to(root)
        return None, (whole.relative_to(root) if inside else Path(spot.path)).as_posix()
    if isinstance(spot, InTar):
        return spot.file, row.where.removeprefix(f"{spot.file}, ")
    return (spot.file, None) if isinstance(spot, InParquet) else (None, None)

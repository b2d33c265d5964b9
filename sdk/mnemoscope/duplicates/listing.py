"""The list of what to train on, and what to leave out since another row has the same picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from ..captioned import Broken, CaptionedSet
from ..tables import Columns, write_table
from .repeats import Repeats

__all__ = ["COLUMNS", "write_list"]

COLUMNS: Columns = MappingProxyType(
    {
        **{"row": int, "file": str, "name": str, "keep": bool, "same_as": int},
        **{"similarity": float, "picture_times": int, "caption_times": int},
        **{"image_error": str},
    }
)


def write_list(
    path: Path,
    captioned: CaptionedSet,
    repeats: Repeats,
    remedy: str = "",
    errors: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Write which rows to keep: of each group of pictures that are one, the first.

    One row for each of the set, in its order:

    - `row`: counted from 1.
    - `file`, `name`: the tar or Parquet file, and what the set calls the picture (`Captioned`).
    - `keep`: false if a row before it has the same picture; null if its picture cannot be read.
    - `same_as`, `similarity`: the row that is kept in its place, and the cosine of both pictures.
    - `picture_times`, `caption_times`: how many rows have that picture, and that caption.
    - `image_error`: why the picture cannot be read.

    Args:
        path: `.jsonl`, `.csv` or `.parquet`.
        captioned: The set.
        repeats: What it holds more than once.
        remedy: What to do if the file cannot be written.
        errors: Why the pictures of rows, counted from 0, could not be read, beyond what the set
            itself says of its rows.

    Raises:
        InputError: it cannot be written, or the set was changed meanwhile.
    """
    write_table(path, COLUMNS, _rows(captioned, repeats, errors), remedy)


def _rows(
    captioned: CaptionedSet, repeats: Repeats, errors: Mapping[int, str]
) -> Iterator[tuple[object, ...]]:
    pictures, captions = repeats.picture_times, repeats.caption_times
    count = 0
    for row, each in enumerate(captioned.rows()):
        count += 1
        if count > len(pictures):
            break
        kept, similarity = int(repeats.picture[row]), float(repeats.similarity[row])
        dropped = kept not in (-1, row)
        why = each.picture.reason if isinstance(each.picture, Broken) else errors.get(row, "")
        yield (
            row + 1,
            *each.place,
            None if kept < 0 else not dropped,
            kept + 1 if dropped else None,
            similarity if dropped else None,
            int(pictures[row]) or None,
            int(captions[row]) or None,
            why or None,
        )
    if count != len(pictures):
        raise InputError(
            f"{captioned.path} was changed while it was read: it had "
            f"{counted(len(pictures), 'row')}. Begin again."
        )

"""Columns that look like pictures, of tables that nobody called a set of captioned pictures."""

from __future__ import annotations

from pathlib import Path

from mnemoscope_runtime.errors import InputError

from ..prompts import Wanted, read_records
from .cells import looks_like_pictures, names_of
from .paths import is_picture

__all__ = ["TABLES", "picture_column"]

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_NAMES = ("image", "file_name", "image_path", "picture", "img", "path", "file", "filename")


def picture_column(path: Path, *, quotes: bool = True) -> str | None:
    """A column that holds pictures, or paths that end like theirs in the first row.

    Args:
        path: A table; of anything else there is none.
        quotes: As in `read_prompt_file`.

    Returns:
        Its name; None if there is none, or what it would be cannot be read. Of paths in text tables
        a few usual names are looked for.

    Raises:
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    ending = path.suffix.lower()
    if ending not in TABLES or not path.is_file():
        return None
    if ending != ".parquet":
        return next((name for name in _NAMES if _holds_paths(path, name, quotes)), None)
    names = names_of(path)
    held = (name for name in names if looks_like_pictures(path, name))
    told = (name for name in names if name in _NAMES and _holds_paths(path, name, quotes=True))
    return next(held, None) or next(told, None)


def _holds_paths(path: Path, name: str, quotes: bool) -> bool:
    quotes = quotes or path.suffix.lower() not in (".csv", ".tsv")
    try:
        wanted = Wanted("picture", (name,), "")
        first = next(read_records(path, (wanted,), quotes=quotes), None)
    except InputError:
        return False
    cell = None if first is None else first.cells[0]
    return isinstance(cell, str) and is_picture(cell)

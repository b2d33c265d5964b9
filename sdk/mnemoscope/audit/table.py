"""One row of results for each prompt of an audit, as JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import BackendUnavailable, InputError

from ..outputs import writing, writing_text
from ..prompts.printable import json_text

__all__ = ["COLUMNS", "REMEDY", "Row", "check", "write"]

COLUMNS = ("prompt", "score", "p_value", "flagged", "group", "truncated", "error")
# what cannot be screened has an error and None for the rest: it is not "not flagged"
Row = tuple[str, float | None, float | None, bool | None, int | None, bool | None, str | None]
_CHUNK = 10_000  # rows
REMEDY = "Make room or choose another file. The same command goes on where this one stopped."


def check(path: Path) -> None:
    """Raise unless results can be written as that kind of file.

    Raises:
        InputError: the ending is not known, or the folder is not there.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    if path.suffix.lower() not in _WRITERS:
        raise InputError(
            f"Results are not written as {path.name}. Name a file that ends in one of: "
            f"{', '.join(_WRITERS)}."
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write results; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    _WRITERS[path.suffix.lower()](path, rows)


def _json(path: Path, rows: Iterable[Row]) -> None:
    with writing_text(path, REMEDY) as file:
        for row in rows:
            named = dict(zip(COLUMNS, row, strict=True))
            file.write(json_text(named) + "\n")


def _csv(path: Path, rows: Iterable[Row]) -> None:
    with writing_text(path, REMEDY) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(("" if value is None else value for value in row) for row in rows)


def _parquet(path: Path, rows: Iterable[Row]) -> None:
    arrow, parquet = _pyarrow(path)
    kinds = (
        *(arrow.string(), arrow.float64(), arrow.float64(), arrow.bool_(), arrow.int64()),
        *(arrow.bool_(), arrow.string()),
    )
    schema = arrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    rows = iter(rows)
    with writing(path, REMEDY) as file, parquet.ParquetWriter(file, schema) as writer:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            columns = dict(zip(COLUMNS, zip(*chunk, strict=True), strict=True))
            writer.write_table(arrow.table(columns, schema))


_WRITERS = {".jsonl": _json, ".csv": _csv, ".parquet": _parquet}


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs pyarrow: {error}. Install it with `pip install 'mnemoscope[parquet]'`, "
            "or write .csv or .jsonl."
        ) from None
    return pyarrow, parquet

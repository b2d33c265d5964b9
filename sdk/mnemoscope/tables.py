"""Tables of results, in a stream, as JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

from .outputs import writing, writing_text
from .prompts.printable import json_text

__all__ = ["Columns", "check_table", "write_table"]

Columns = Mapping[str, type[str] | type[float] | type[bool] | type[int]]
_CHUNK = 10_000  # rows


def check_table(path: Path) -> None:
    """Raise unless a table can be written as that kind of file.

    Raises:
        InputError: the ending is not known.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    if path.suffix.lower() not in _WRITERS:
        raise InputError(
            f"Results are not written as {path.name}. Name a file that ends in one of: "
            f"{', '.join(_WRITERS)}."
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def write_table(
    path: Path, columns: Columns, rows: Iterable[tuple[object, ...]], remedy: str
) -> None:
    """Write a table; the file appears whole or not at all.

    Args:
        path: What `check_table` accepts.
        columns: Their names and kinds; any value may be None as well.
        rows: One value for each column.
        remedy: What to do if it cannot be written.

    Raises:
        InputError: it cannot be written.
    """
    _WRITERS[path.suffix.lower()](path, columns, rows, remedy)


def _json(path: Path, columns: Columns, rows: Iterable[tuple[object, ...]], remedy: str) -> None:
    with writing_text(path, remedy) as file:
        for row in rows:
            named = dict(zip(columns, row, strict=True))
            file.write(json_text(named) + "\n")


def _csv(path: Path, columns: Columns, rows: Iterable[tuple[object, ...]], remedy: str) -> None:
    with writing_text(path, remedy) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(("" if value is None else value for value in row) for row in rows)


def _parquet(path: Path, columns: Columns, rows: Iterable[tuple[object, ...]], remedy: str) -> None:
    arrow, parquet = _pyarrow(path)
    kinds = {
        str: arrow.string(),
        float: arrow.float64(),
        bool: arrow.bool_(),
        int: arrow.int64(),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    rows = iter(rows)
    with writing(path, remedy) as file, parquet.ParquetWriter(file, schema) as writer:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            values = dict(zip(columns, zip(*chunk, strict=True), strict=True))
            writer.write_table(arrow.table(values, schema))


_WRITERS = {".jsonl": _json, ".csv": _csv, ".parquet": _parquet}


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs pyarrow: {error}. Install it with {pip_install('parquet')}, "
            "or write .csv or .jsonl."
        ) from None
    return pyarrow, parquet

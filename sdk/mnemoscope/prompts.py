"""Reading prompts from files, line by line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from mnemoscope_runtime.errors import BackendUnavailable, InputError

__all__ = ["COLUMNS", "read_prompt_file"]

Text = Callable[[object, str, int], str]
COLUMNS = ("prompt", "caption", "text")  # where a prompt is looked for, in this order
_LONGEST_LINE = 16 * 2**20  # bytes; without an end of line, memory would have none either
_HOW = f"Name the column with --column, or call it one of: {', '.join(COLUMNS)}."


def read_prompt_file(
    path: str | Path, *, column: str | None = None, missing: str | None = None
) -> Iterator[str]:
    """Yield the prompts of a file, in constant memory.

    Args:
        path: `.txt` (one prompt a line, blank lines skipped), `.jsonl` (strings or objects),
            `.csv` or `.tsv` (with a header), `.parquet`, or "-" for standard input (as `.txt`).
        column: Key or column that holds the prompt; by default the first of `COLUMNS` present.
        missing: What stands for a prompt that is null; by default that is an error.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has no such column; says the line.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    if str(path) == "-":
        yield from _text_lines(sys.stdin.buffer, "standard input")
        return
    path = Path(path)
    text = partial(_text, missing=missing)
    readers = {
        ".txt": lambda file: _text_lines(file, str(path)),
        ".jsonl": lambda file: _json_lines(file, str(path), column, text),
        ".csv": lambda file: _csv_rows(file, str(path), column, text, ",;\t"),
        ".tsv": lambda file: _csv_rows(file, str(path), column, text, "\t"),
        ".parquet": lambda file: _parquet_rows(file, str(path), column, text),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} has an ending that is not known. Give one of: {', '.join(readers)}, or - for "
            "standard input."
        )
    try:
        with path.open("rb") as file:
            yield from reader(file)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        if len(raw) == _LONGEST_LINE:
            raise InputError(
                f"{name}, line {number}: longer than {_LONGEST_LINE:,} bytes, so it holds no "
                "prompts. Put each prompt on a line of its own."
            )
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: not UTF-8 (byte {error.start}). Convert it, for example "
                "with `iconv -f latin1 -t utf-8`."
            ) from None
        if "\0" in line:
            raise InputError(
                f"{name}, line {number}: contains a NUL byte, so it is not a text file (UTF-16?). "
                "Convert it to UTF-8."
            )
        yield number, line.rstrip("\r\n")


def _text_lines(file: IO[bytes], name: str) -> Iterator[str]:
    for _, line in _lines(file, name):
        if line.strip():
            yield line


def _json_lines(file: IO[bytes], name: str, column: str | None, text: Text) -> Iterator[str]:
    for number, line in _lines(file, name):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: not JSON ({error}).") from None
        if isinstance(row, str):
            yield row
        elif isinstance(row, dict):
            chosen = _column(row, f"{name}, line {number}", column)
            yield text(row[chosen], name, number)
        else:
            raise InputError(f"{name}, line {number}: neither text nor an object. {_HOW}")


def _csv_rows(
    file: IO[bytes], name: str, column: str | None, text: Text, delimiters: str
) -> Iterator[str]:
    lines = (line + "\n" for _, line in _lines(file, name))
    header = next(lines, "")
    delimiter = max(delimiters, key=header.count)
    columns = next(csv.reader(io.StringIO(header), delimiter=delimiter), [])
    chosen = _column(dict.fromkeys(columns), name, column)
    rows = csv.DictReader(lines, fieldnames=columns, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if any(row.get(None) or ()):
                raise InputError(
                    f"{name}, line {rows.line_num + 1}: more fields than the header has. "
                    f"Put prompts that contain {delimiter!r} in double quotes."
                )
            yield text(row[chosen], name, rows.line_num + 1)
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.reader.line_num + 1}: {error}.") from None


def _parquet_rows(file: IO[bytes], name: str, column: str | None, text: Text) -> Iterator[str]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{name} needs pyarrow: {error}. Install it with `pip install 'mnemoscope[parquet]'`."
        ) from None
    try:
        table = parquet.ParquetFile(file)
        chosen = _column(dict.fromkeys(table.schema_arrow.names), name, column)
        number = 0
        for batch in table.iter_batches(1024, columns=[chosen]):
            for value in batch.column(0):
                number += 1
                yield text(value.as_py(), name, number)
    except ArrowInvalid as error:
        raise InputError(f"{name} is no Parquet file: {error}.") from None


def _column(row: dict[str, Any], name: str, column: str | None) -> str:
    wanted = (column,) if column is not None else COLUMNS
    found = {str(key).strip().lower(): str(key) for key in row if key is not None}
    for candidate in wanted:
        if candidate in row:
            return candidate
        if candidate.lower() in found:
            return found[candidate.lower()]
    raise InputError(
        f"{name} has no column {' or '.join(wanted)}, only {sorted(found)!s:.200}. {_HOW}"
    )


def _text(value: object, name: str, number: int, missing: str | None) -> str:
    if value is None and missing is not None:
        return missing
    if not isinstance(value, str):
        raise InputError(f"{name}, row {number}: the prompt is {value!r:.80}, not text.")
    return value

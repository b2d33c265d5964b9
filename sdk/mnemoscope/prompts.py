"""Reading prompts from files, line by line."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from mnemoscope_runtime.errors import BackendUnavailable, InputError

__all__ = ["COLUMNS", "read_labelled_file", "read_prompt_file"]

COLUMNS = ("prompt", "caption", "text")  # where a prompt is looked for, in this order
_LONGEST_LINE = 16 * 2**20  # bytes; without an end of line, memory would have none either
_HOW = f"Name the column with --column, or call it one of: {', '.join(COLUMNS)}."


@dataclass(frozen=True)
class _Wanted:
    """A column: what it holds, the names it may have, and what to do if it has none of them."""

    what: str
    names: tuple[str, ...]
    how: str
    missing: str | None = None


_Columns = tuple[_Wanted, ...]
_Row = tuple[str, ...]  # what was wanted, in that order


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
    return (prompt for (prompt,) in _read(path, (_prompt(column, missing),)))


def read_labelled_file(
    path: str | Path, *, label: str, column: str | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the prompts of a file, each with what another column says of it.

    Args:
        path: A file with columns; see `read_prompt_file`.
        label: Key or column that holds the label.
        column: Key or column that holds the prompt.

    Raises:
        InputError: as `read_prompt_file`; or a file of text, which has no columns.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    wanted = _Wanted("label", (label,), "Name one of those, or leave --label out.")
    return ((prompt, found) for prompt, found in _read(path, (_prompt(column), wanted)))


def _prompt(column: str | None, missing: str | None = None) -> _Wanted:
    return _Wanted("prompt", COLUMNS if column is None else (column,), _HOW, missing)


def _read(path: str | Path, columns: _Columns) -> Iterator[_Row]:
    if str(path) == "-":
        yield from _text_lines(sys.stdin.buffer, "standard input", columns)
        return
    path = Path(path)
    readers = {
        ".txt": lambda file: _text_lines(file, str(path), columns),
        ".jsonl": lambda file: _json_lines(file, str(path), columns),
        ".csv": lambda file: _csv_rows(file, str(path), columns, ",;\t"),
        ".tsv": lambda file: _csv_rows(file, str(path), columns, "\t"),
        ".parquet": lambda file: _parquet_rows(file, str(path), columns),
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
            wide = number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            raise InputError(
                f"{name}, line {number}: not UTF-8 (byte {error.start}). Convert it, for example "
                f"with `iconv -f {'utf-16' if wide else 'latin1'} -t utf-8`."
            ) from None
        if "\0" in line:
            raise InputError(
                f"{name}, line {number}: contains a NUL byte, so it is not a text file (UTF-16?). "
                "Convert it to UTF-8."
            )
        yield number, line.rstrip("\r\n")


def _text_lines(file: IO[bytes], name: str, columns: _Columns) -> Iterator[_Row]:
    for number, line in _lines(file, name):
        if line.strip():
            yield _alone(line, f"{name}, line {number}", columns)


def _json_lines(file: IO[bytes], name: str, columns: _Columns) -> Iterator[_Row]:
    for number, line in _lines(file, name):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: not JSON ({error}).") from None
        if isinstance(row, str):
            yield _alone(row, f"{name}, line {number}", columns)
        elif isinstance(row, dict):
            where = f"{name}, line {number}"
            yield tuple(_text(row[_column(row, where, c)], name, number, c) for c in columns)
        else:
            raise InputError(f"{name}, line {number}: neither text nor an object. {_HOW}")


def _csv_rows(file: IO[bytes], name: str, columns: _Columns, delimiters: str) -> Iterator[_Row]:
    lines = (line + "\n" for _, line in _lines(file, name))
    header = next(lines, "")
    delimiter = max(delimiters, key=header.count)
    names = next(csv.reader(io.StringIO(header), delimiter=delimiter), [])
    chosen = [_column(dict.fromkeys(names), name, column) for column in columns]
    rows = csv.DictReader(lines, fieldnames=names, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if any(row.get(None) or ()):
                raise InputError(
                    f"{name}, line {rows.line_num + 1}: more fields than the header has. "
                    f"Put prompts that contain {delimiter!r} in double quotes."
                )
            values = zip(chosen, columns, strict=True)
            yield tuple(_text(row[c], name, rows.line_num + 1, column) for c, column in values)
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.reader.line_num + 1}: {error}.") from None


def _parquet_rows(file: IO[bytes], name: str, columns: _Columns) -> Iterator[_Row]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{name} needs pyarrow: {error}. Install it with `pip install 'mnemoscope[parquet]'`."
        ) from None
    try:
        table = parquet.ParquetFile(file)
        chosen = [_column(dict.fromkeys(table.schema_arrow.names), name, c) for c in columns]
        number = 0
        for batch in table.iter_batches(1024, columns=list(dict.fromkeys(chosen))):
            for values in zip(*(batch.column(c).to_pylist() for c in chosen), strict=True):
                number += 1
                pairs = zip(values, columns, strict=True)
                yield tuple(_text(value, name, number, column) for value, column in pairs)
    except ArrowInvalid as error:
        raise InputError(f"{name} is no Parquet file: {error}.") from None


def _alone(text: str, where: str, columns: _Columns) -> _Row:
    """A row that has no columns: the prompt and nothing else."""
    for other in columns[1:]:
        raise InputError(
            f"{where}: text without columns, so there is no {other.what} {other.names[0]!r}. Give "
            "a .jsonl, .csv, .tsv or .parquet file with one."
        )
    return (text,)


def _column(row: dict[str, Any], name: str, wanted: _Wanted) -> str:
    found = {str(key).strip().lower(): str(key) for key in row if key is not None}
    for candidate in wanted.names:
        if candidate in row:
            return candidate
        if candidate.lower() in found:
            return found[candidate.lower()]
    raise InputError(
        f"{name} has no column {' or '.join(wanted.names)}, only {sorted(found)!s:.200}. "
        f"{wanted.how}"
    )


def _text(value: object, name: str, number: int, wanted: _Wanted) -> str:
    if value is None and wanted.missing is not None:
        return wanted.missing
    if not isinstance(value, str):
        raise InputError(f"{name}, row {number}: the {wanted.what} is {value!r:.80}, not text.")
    return value

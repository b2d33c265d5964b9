"""Prompts of a file, whatever its format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from mnemoscope_runtime.errors import InputError

from .delimited import delimited
from .jsonl import json_lines
from .lines import text
from .parquet import parquet_rows
from .printable import reason_of
from .records import COLUMNS, HOW, Broken, Cell, Record, Tally, Wanted

__all__ = [
    "no_longer",
    "prompt_column",
    "read_labelled_file",
    "read_prompt_file",
    "read_records",
    "read_rows",
]

Tell = Callable[[str], None]


def read_prompt_file(
    path: str | Path,
    *,
    column: str | None = None,
    quotes: bool = True,
    longest: int | None = None,
    tell: Tell = lambda _: None,
) -> Iterator[str]:
    """Yield the prompts of a file, in constant memory.

    Args:
        path: `.txt` (one prompt a line, blank lines skipped), `.jsonl` (strings or objects),
            `.csv` or `.tsv` (with a header), `.parquet`, or "-" for standard input (as `.txt`, like
            a pipe without an ending).
        column: Key or column that holds the prompt; by default the first of `COLUMNS` present.
        quotes: Whether double quotes hold fields of `.csv` and `.tsv` together; if not, they are
            part of the text, and every row is a line.
        longest: Characters that a prompt may have.
        tell: Told at the end how many prompts were read, and what was left out.

    Raises:
        InputError: the file cannot be read, is not UTF-8, has no such column, or a row holds no
            text there or too much; says the line.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    for record in _read(path, (prompt_column(column),), quotes, tell):
        yield _strict(no_longer(record.cells[0], longest), path, record.where)


def read_labelled_file(
    path: str | Path,
    *,
    label: str,
    column: str | None = None,
    quotes: bool = True,
    tell: Tell = lambda _: None,
) -> Iterator[tuple[str, str]]:
    """Yield the prompts of a file, each with what another column says of it.

    Args:
        path: A file with columns; see `read_prompt_file`.
        label: Key or column that holds the label.
        column: Key or column that holds the prompt.
        quotes: As in `read_prompt_file`.
        tell: As in `read_prompt_file`.

    Raises:
        InputError: as `read_prompt_file`; or a file of text, which has no columns.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    wanted = Wanted("label", (label,), "Name one of those, or leave --label out.")
    for record in _read(path, (prompt_column(column), wanted), quotes, tell):
        prompt, found = (_strict(cell, path, record.where) for cell in record.cells)
        yield prompt, found


def read_rows(
    path: str | Path,
    *,
    column: str | None = None,
    quotes: bool = True,
    longest: int | None = None,
    tell: Tell = lambda _: None,
) -> Iterator[str | Broken]:
    """Yield what every row of a file holds: a prompt, or why there is none.

    Args:
        path: As in `read_prompt_file`, like the others.
        column: Key or column that holds the prompt.
        quotes: Whether double quotes hold fields together.
        longest: Characters that a prompt may have.
        tell: Told what was read.

    Raises:
        InputError: the file cannot be read at all, has no such column, or quotes that do not match.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    records = _read(path, (prompt_column(column),), quotes, tell)
    return (no_longer(record.cells[0], longest) for record in records)


def read_records(
    path: str | Path,
    columns: Sequence[Wanted],
    *,
    quotes: bool = True,
    tell: Tell = lambda _: None,
) -> Iterator[Record]:
    """Yield several columns of every row of a file, each text or why there is none.

    Args:
        path: As in `read_prompt_file`.
        columns: The prompt's first (`prompt_column`).
        quotes: Whether double quotes hold fields together.
        tell: Told what was read.

    Raises:
        InputError: as `read_rows`; or a file of text, which has no columns.
        BackendUnavailable: a Parquet file, and pyarrow is not installed.
    """
    return _read(path, columns, quotes, tell)


def prompt_column(column: str | None = None) -> Wanted:
    """The column of prompts: by its name, or the first of `COLUMNS`."""
    return Wanted("prompt", COLUMNS if column is None else (column,), HOW)


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def no_longer(cell: Cell, longest: int | None) -> Cell:
    """A cell, unless it has more characters than that."""
    if longest is None or isinstance(cell, Broken) or len(cell) <= longest:
        return cell
    return Broken(
        f"longer than {longest:,} characters",
        f"{len(cell):,} characters; {longest:,} are accepted. Cut the prompt.",
        cell,
    )


def _strict(cell: Cell, path: str | Path, where: str) -> str:
    if isinstance(cell, Broken):
        raise InputError(f"{_name(path)}, {where}: {cell.detail}")
    return cell


def _read(
    path: str | Path, columns: Sequence[Wanted], quotes: bool, tell: Tell
) -> Iterator[Record]:
    tally = Tally()
    for record in _records(path, columns, quotes, tally):
        prompt = record.cells[0]
        tally.rows += 1
        tally.empty += isinstance(prompt, str) and not prompt.strip()
        yield record
    if tally.rows:
        tell(f"{_name(path)}: {tally}.")


def _records(
    path: str | Path, columns: Sequence[Wanted], quotes: bool, tally: Tally
) -> Iterator[Record]:
    name = _name(path)
    if str(path) == "-":
        yield from text(sys.stdin.buffer, name, columns, tally)
        return
    table = partial(delimited, name=name, columns=columns, tally=tally, quotes=quotes)
    readers: dict[str, Callable[[IO[bytes]], Iterator[Record]]] = {
        ".txt": partial(text, name=name, columns=columns, tally=tally),
        ".jsonl": partial(json_lines, name=name, columns=columns, tally=tally),
        ".csv": partial(table, delimiters=",;\t"),
        ".tsv": partial(table, delimiters="\t"),
        ".parquet": partial(parquet_rows, name=name, columns=columns),
    }
    ending = Path(path).suffix.lower()
    if not ending and Path(path).exists() and not Path(path).is_file():
        ending = ".txt"  # a pipe or a device: `<(command)`, as standard input
    reader = readers.get(ending)
    if reader is None and not Path(path).exists():
        raise InputError(f"There is no file {path}. Give one that there is.")
    if reader is None:
        raise InputError(
            f"{path} has an ending that is not known. Give one of: {', '.join(readers)}, or - for "
            "standard input."
        )
    if not quotes and ending not in (".csv", ".tsv"):
        raise InputError(f"--no-quotes is for .csv and .tsv files, and {name} is none.")
    try:
        with Path(path).open("rb") as file:
            yield from reader(file)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {reason_of(error.strerror or error)}.") from None

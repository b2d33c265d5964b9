"""CSV and TSV, as RFC 4180 has them, read by Python's `csv`.

A field in double quotes may hold delimiters, ends of lines, and quotes written twice; every row
has as many fields as the header. With `quotes=False` a quote is a character like any other and a
row is a line, as in the registered type `text/tab-separated-values`.

Always `csv`, whatever else is installed: a file must not read differently on another machine.
(The tests compare it with pyarrow's reader.)
"""

from __future__ import annotations

import csv
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from mnemoscope_runtime.errors import InputError

from .lines import LONGEST, Line, read_lines
from .records import Broken, Cell, Record, Tally, Wanted, broken_row, checked, choose, lacks

__all__ = ["delimited"]

_LONGEST_HEADER = 2**20  # characters
_LIMIT_LOCK = threading.Lock()


def delimited(
    file: IO[bytes],
    name: str,
    columns: Sequence[Wanted],
    tally: Tally,
    *,
    delimiters: str,
    quotes: bool,
) -> Iterator[Record]:
    """Every row after the header.

    Raises:
        InputError: there is no such column, or the quotes do not match.
    """
    lines = _Again(itertools.dropwhile(_is_blank, read_lines(file, name)))
    table = _header(lines, name, columns, delimiters, quotes)
    for row in _rows(lines.after(table.last), name, table.delimiter, quotes):
        if not "".join(row.fields).strip() and len(row.fields) < max(2, len(table.names)):
            tally.blank += 1
            continue
        tally.spanning += row.last > row.first
        yield Record(row.where, _cells(row.fields, table, columns))


@dataclass(frozen=True)
class _Row:
    fields: list[str]
    first: int  # line
    last: int

    @property
    def where(self) -> str:
        one = self.first == self.last
        return f"line {self.first}" if one else f"lines {self.first} to {self.last}"


@dataclass(frozen=True)
class _Table:
    names: list[str]
    delimiter: str
    chosen: list[int]  # columns, as they are wanted
    last: int  # line of the header


def _cells(row: list[str], table: _Table, columns: Sequence[Wanted]) -> tuple[Cell, ...]:
    size = len(table.names)
    if len(row) < size or any(row[size:]):
        more = "more" if len(row) > size else "fewer"
        detail = (
            f"{more} fields than the header has ({len(row)}, and {size} in line {table.last}). "
            f"Put prompts that hold {table.delimiter!r} or an end of line in double quotes; if "
            "quotes are part of the text, pass --no-quotes."
        )
        text = table.delimiter.join(row)
        return broken_row(columns, Broken("not as many fields as the header has", detail, text))
    return tuple(checked(row[place]) for place in table.chosen)


def _header(
    lines: _Again, name: str, columns: Sequence[Wanted], delimiters: str, quotes: bool
) -> _Table:
    """The header, cut at the delimiter that gives the columns that are wanted."""
    top = next((line.text for line in lines.again()), "")
    problem = f"{name} has no header: its first line is to name the columns, and there is none."
    for guess in sorted(delimiters, key=lambda each: -top.count(each)) if top else ():
        try:
            header = next(_rows(lines.again(), name, guess, quotes, _LONGEST_HEADER))
        except InputError as error:  # quotes that do not match may do so with another
            problem = str(error)
            continue
        try:
            chosen = [choose(header.fields, column) for column in columns]
        except InputError as error:
            raise InputError(f"{name}, {header.where}: {error}") from None
        found = [place for place in chosen if place is not None]
        if len(found) == len(chosen):
            return _Table(header.fields, guess, found, header.last)
        if guess == delimiters[0] or top.count(guess):
            problem = f"{name} has {lacks(header.fields, columns[chosen.index(None)])}"
    raise InputError(problem)


def _rows(
    lines: Iterator[Line], name: str, delimiter: str, quotes: bool, most: int = LONGEST
) -> Iterator[_Row]:
    taken: list[int] = []  # numbers of the lines of a row
    size = 0  # characters of them

    def source() -> Iterator[str]:
        nonlocal size
        for line in lines:
            taken[1:] = [line.number]
            size += len(line.text) + len(line.end)
            if size > most:
                raise InputError(
                    f"{name}, line {taken[0]}: the row that begins here has more than {most:,} "
                    "characters. If quotes are part of the text, pass --no-quotes."
                )
            yield line.text + line.end

    reader = csv.reader(
        source(),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        taken.clear()
        size = 0
        try:
            with _long_fields():
                fields = next(reader, None)
        except csv.Error as error:
            raise InputError(_problem(name, taken[0], taken[-1], error)) from None
        if fields is None:
            return
        yield _Row(fields, taken[0], taken[-1])


def _problem(name: str, first: int, last: int, error: csv.Error) -> str:
    if "unexpected end" in str(error):
        what = f"a quote that opens in line {first} is not closed by line {last}, the last one"
    else:
        what = f"quotes do not match in line {last}, of the row from line {first} on ({error})"
    lines = f"line {first}" if first == last else f"lines {first} to {last}"
    return (
        f"{name}, {lines}: {what}. Write quotes inside of a quoted field twice; if they are part "
        "of the text, pass --no-quotes."
    )


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields as long as a line may be; `csv` has one limit for the whole process."""
    with _LIMIT_LOCK:
        before = csv.field_size_limit(LONGEST)
        try:
            yield
        finally:
            csv.field_size_limit(before)


class _Again:
    """Lines, of which those at the beginning can be read again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._seen: list[Line] = []

    def again(self) -> Iterator[Line]:
        """Lines from the beginning, kept for the next time."""
        yield from self._seen
        for line in self._lines:
            self._seen.append(line)
            yield line

    def after(self, last: int) -> Iterator[Line]:
        """Those behind one, kept no longer."""
        seen, self._seen = self._seen, []
        yield from (line for line in seen if line.number > last)
        yield from self._lines


def _is_blank(line: Line) -> bool:
    return not line.text.strip()

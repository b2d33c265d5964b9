"""JSON lines: a text or an object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

from mnemoscope_runtime.errors import InputError

from .lines import read_lines
from .records import (
    HOW,
    Broken,
    Cell,
    Record,
    Tally,
    Wanted,
    alone,
    broken_row,
    checked,
    choose,
    lacks,
)

__all__ = ["json_cells", "json_lines"]

_ARRAY = "an array, and .jsonl holds a text or an object on each line; `jq -c '.[]'` takes it apart"


def json_lines(
    file: IO[bytes], name: str, columns: Sequence[Wanted], tally: Tally
) -> Iterator[Record]:
    """Every line that is not blank, as a row."""
    for line in read_lines(file, name):
        if not line.text.strip():
            tally.blank += 1
            continue
        tally.separators += len(line.text.splitlines()) > 1
        yield Record(f"line {line.number}", json_cells(line.text, columns))


def json_cells(line: str, columns: Sequence[Wanted]) -> tuple[Cell, ...]:
    """What is wanted of an object, or of a text alone.

    Args:
        line: JSON; bytes that are not UTF-8 as `surrogateescape` keeps them.
        columns: What is wanted.
    """
    found = checked(line)
    if isinstance(found, Broken):
        return broken_row(columns, found)
    try:
        row = json.loads(
            line, object_pairs_hook=_Pairs, parse_constant=_no_constant, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:
        shown = _ARRAY if line.lstrip().startswith("[") else f"{error!s:.200}"
        return broken_row(columns, Broken("not JSON", f"not JSON ({shown}).", line))
    if isinstance(row, str):
        return alone(checked(row, bytes_kept=False), columns)
    if isinstance(row, _Pairs):
        return tuple(_cell(row, column) for column in columns)
    how = f": {_ARRAY}." if isinstance(row, list) else f". {HOW}"
    detail = f"neither text nor an object{how}"
    return broken_row(columns, Broken("neither text nor an object", detail, line))


class _Pairs(list[tuple[str, Any]]):
    """An object, with keys that it has twice."""


def _integer(digits: str) -> float:
    """A number that nobody reads, however long: Python's int takes 4,300 digits."""
    return int(digits) if len(digits) < 4000 else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _cell(row: _Pairs, wanted: Wanted) -> Cell:
    names = [key for key, _ in row]
    try:
        place = choose(names, wanted)
    except InputError as error:
        return Broken(f"more than one {wanted.what}", str(error))
    if place is None:
        return Broken(f"no {wanted.what}", lacks(names, wanted))
    return _text_of(row[place][1], wanted)


def _text_of(value: object, wanted: Wanted) -> Cell:
    """A value as a cell."""
    if isinstance(value, str):
        return checked(value, bytes_kept=False)
    if value is None:
        return Broken(f"no {wanted.what}: null", f"the {wanted.what} is null, not text.")
    if isinstance(value, _Pairs):
        value = dict(value)
    shown = f"{value!r:.80}"
    return Broken("not text", f"the {wanted.what} is {shown}, not text.", shown)

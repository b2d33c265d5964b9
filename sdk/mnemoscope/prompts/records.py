"""What a row of a file is: cells that were wanted, each text or the reason why not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mnemoscope_runtime.errors import InputError

from .printable import counted, printable

__all__ = [
    "COLUMNS",
    "HOW",
    "Broken",
    "Cell",
    "Record",
    "Tally",
    "Wanted",
    "alone",
    "broken_row",
    "checked",
    "choose",
    "lacks",
]

COLUMNS = ("prompt", "caption", "text")
"""Where a prompt is looked for in a table, in this order."""
HOW = f"Name the column with --column, or call it one of: {', '.join(COLUMNS)}."


_NO_COLUMNS = "text, which has no columns. Leave --column out, or give objects or a table."


@dataclass(frozen=True)
class Wanted:
    """A column: what it holds, the names it may have, and what to do if it has none of them."""

    what: str
    names: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Broken:
    """What a row has in place of text.

    Attributes:
        reason: Why it is none, the same words for all of the kind.
        detail: The same of this row, and what to do.
        text: What can be shown of it.
    """

    reason: str
    detail: str
    text: str = ""


Cell = str | Broken


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a file.

    Attributes:
        where: Its line, lines or row, in words.
        cells: What was wanted, in that order.
    """

    where: str
    cells: tuple[Cell, ...]


@dataclass
class Tally:
    """What was counted while reading, to be told at the end."""

    rows: int = 0
    blank: int = 0  # lines that are no rows
    empty: int = 0  # prompts of white space, or none
    spanning: int = 0  # rows that take several lines
    separators: int = 0  # lines with characters that end a line elsewhere

    def __str__(self) -> str:
        parts = [counted(self.rows, "prompt")]
        if self.empty:
            parts.append(f"{self.empty:,} of them empty or white space")
        if self.spanning:
            parts.append(
                f"{self.spanning:,} of them over several lines, in quotes (--no-quotes reads "
                "quotes as they stand)"
            )
        if self.separators:
            parts.append(
                f"{self.separators:,} of them with U+2028, U+0085 or the like inside, which ends "
                "no line here"
            )
        if self.blank:
            parts.append(f"{counted(self.blank, 'blank line')} left out")
        return "; ".join(parts)


def checked(text: str, *, bytes_kept: bool = True) -> Cell:
    """Text as it is, unless it holds what is no character.

    Args:
        text: From a file.
        bytes_kept: Whether surrogates in it are bytes that were no UTF-8, as `surrogateescape`
            keeps them; else the file itself wrote surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        start = error.start
    else:
        return text
    if bytes_kept:
        return Broken(
            "not UTF-8",
            f"not UTF-8 (byte {len(text[:start].encode())}). Convert it, for example with "
            "`iconv -f latin1 -t utf-8`.",
            text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        )
    return Broken(
        "half of a surrogate pair: no character",
        f"holds \\u{ord(text[start]):04x}, half of a surrogate pair, which is no character. Write "
        "the file again from the original text.",
        text.encode("utf-8", "backslashreplace").decode(),
    )


def alone(cell: Cell, columns: Sequence[Wanted]) -> tuple[Cell, ...]:
    """A row that has no columns: the prompt and nothing else."""
    if columns[0].names != COLUMNS:
        return broken_row(columns, Broken("text, which has no columns", _NO_COLUMNS))
    for other in columns[1:]:
        raise InputError(
            f"Text without columns, so there is no {other.what} {other.names[0]!r}. Give a .jsonl, "
            ".csv, .tsv or .parquet file with one."
        )
    return (cell,)


def lacks(names: Iterable[str], wanted: Wanted) -> str:
    """What to say of a file or an object without a column."""
    found = list(dict.fromkeys(name.strip() for name in names))
    listed = printable(", ".join(found), 200)
    return f"no column {' or '.join(wanted.names)}, only {listed}. {wanted.how}"


def choose(names: Sequence[str], wanted: Wanted) -> int | None:
    """Which of these columns is wanted: by its very name, else in other capitals; None if none is.

    Raises:
        InputError: two of them are named so.
    """
    plain = [name.strip().lower() for name in names]
    for candidate in wanted.names:
        for known, name in ((names, candidate), (plain, candidate.lower())):
            places = [place for place, each in enumerate(known) if each == name]
            if len(places) > 1:
                which = " and ".join(str(place + 1) for place in places)
                raise InputError(
                    f"columns {which} are both named {names[places[0]]!r}, so nobody knows which "
                    f"holds the {wanted.what}. Give them different names."
                )
            if places:
                return places[0]
    return None


def broken_row(columns: Collection[Wanted], broken: Broken) -> tuple[Cell, ...]:
    """A row of which nothing can be used."""
    return (broken,) * len(columns)

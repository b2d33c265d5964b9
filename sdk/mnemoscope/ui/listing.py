"""Audits of files that were handed to the page: measured, read back, and forgotten on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec

from mnemoscope_runtime import InputError

from ..audit import Audit, audit
from ..audit.table import COLUMNS, REMEDY
from ..prompts.printable import printable
from ..tables import write_table
from .desk import Desk, Way
from .runs import Run

__all__ = ["ENDINGS", "SHOWS", "Audited", "Row", "Show", "as_on_the_page", "audit_file"]

ENDINGS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

Show = Literal["Flagged", "Not flagged", "Not screened", "All"]
SHOWS: tuple[Show, ...] = get_args(Show)


class Row(msgspec.Struct, frozen=True):
    """What an audit says of a prompt; see `mnemoscope.audit.table`."""

    prompt: str
    score: float | None
    p_value: float | None
    flagged: bool | None
    group: int | None
    truncated: bool | None
    notes: str | None
    error: str | None


@dataclass(frozen=True)
class Audited:
    """An audit and its files.

    Attributes:
        audit: What was found.
        rows: Of the file, in its order.
        results: The same as CSV.
        report: A page of HTML.
        notes: What else there is to know, a sentence each.
    """

    audit: Audit
    rows: Sequence[Row]
    results: bytes
    report: bytes
    notes: tuple[str, ...]

    def select(self, show: Show, holding: str) -> list[Row]:
        """Some of the rows, the most suspicious first.

        Args:
            show: Which.
            holding: What their prompts hold, in any case; "" for anything.
        """
        wanted = {"Flagged": True, "Not flagged": False, "Not screened": None}
        needle = holding.casefold().strip()
        found = [
            row
            for row in self.rows
            if (show == "All" or row.flagged is wanted[show]) and needle in row.prompt.casefold()
        ]
        return sorted(found, key=lambda row: -1.0 if row.score is None else -row.score)


def audit_file(
    desk: Desk, way: Way, file: Path, column: str, fdr: float, run: Run[Audited]
) -> Audited:
    """Audit a file.

    Args:
        desk: What measures.
        way: How.
        file: Prompts.
        column: Key or column of the prompts; "" for the usual ones.
        fdr: False-discovery rate.
        run: Told how far it is.

    Raises:
        MnemoscopeError: as `mnemoscope.audit.audit`.
        Stopped: the run was stopped.
    """
    if file.suffix.lower() not in ENDINGS:
        raise InputError(
            f"{printable(file.name, 80)} is no file of prompts, by its name. Give one that ends in "
            f"{', '.join(ENDINGS)}."
        )
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mnemoscope-") as folder:
        out, table, page = (Path(folder) / name for name in ("o.jsonl", "results.csv", "o.html"))
        found = audit(
            desk.detector(way),
            file,
            out,
            column=column.strip() or None,
            fdr=fdr,
            steps=way.steps,
            noises=way.noises,
            report_to=page,
            progress=run.tell,
            tell=notes.append,
        )
        rows = tuple(msgspec.json.Decoder(Row).decode_lines(out.read_bytes()))
        write_table(table, COLUMNS, map(msgspec.structs.astuple, rows), REMEDY)
        report = page.read_text("utf-8")
        told = tuple(as_on_the_page(note, file) for note in notes)
        return Audited(
            found, rows, table.read_bytes(), _without_folder(report, file).encode(), told
        )


def as_on_the_page(text: str, file: Path) -> str:
    """What was said of a file, in words of the page where it names options of the command line."""
    told = "Name the right one under “How to audit”, Column"
    return _without_folder(text, file).replace("Name the column with --column", told)


def _without_folder(text: str, file: Path) -> str:
    """What was said of a file, without the folder that it was handed over in."""
    return text.replace(f"{file.parent}{os.sep}", "")

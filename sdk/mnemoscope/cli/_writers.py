"""Detections as a table, JSON lines or CSV, one at a time."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, TextIO

from ..outputs import writing_text
from ..prompts import Broken
from ..prompts.printable import json_text, printable
from ..screening.detection import Detection

__all__ = ["Format", "opened", "printable", "writer"]

_KEYS = (
    *("prompt", "score", "scores", "rms", "p_value", "threshold", "memorized", "detector"),
    *("backend", "bundle", "steps", "truncated"),
    *("noises", "passes", "first", "cleared", "notes", "error"),
)
Write = Callable[[Detection | Broken], None]


class Format(StrEnum):
    """How results are written."""

    table = "table"
    json = "json"
    csv = "csv"


def opened(path: Path | None) -> AbstractContextManager[TextIO]:
    """The output file, or stdout.

    What is written takes the place of an older file once it is whole; until then, and after an
    error, it is beside that as `unfinished`.

    Raises:
        InputError: it cannot be written.
    """
    return nullcontext(sys.stdout) if path is None else writing_text(path, keep=True)


def writer(output: Format, file: IO[str]) -> Write:
    """A function that writes one row: what was measured, or why nothing was. Headers come first."""
    return {Format.table: _table, Format.json: _json, Format.csv: _csv}[output](file)


def verdict(detection: Detection) -> str:
    """The verdict in a word or two; what was read in part is never called clean."""
    if detection.truncated and detection.memorized is False:
        return "in part"
    return {None: "-", True: "memorized", False: "clean"}[detection.memorized]


def _table(file: IO[str]) -> Write:
    colour = file.isatty()
    width = shutil.get_terminal_size((100, 24)).columns - 31 if colour else 1000
    file.write(f"{'score':>9}  {'p':>6}  {'verdict':<9}  prompt\n")

    def write(detection: Detection | Broken) -> None:
        if isinstance(detection, Broken):
            shown = f"{printable(detection.text, width)} ({detection.reason})"
            file.write(f"{'-':>9}  {'-':>6}  {'error':<9}  {shown}\n")
            return
        mark = "+" if detection.truncated else " "
        p = "-" if detection.p_value is None else f"{detection.p_value:.4f}"
        line = (
            f"{detection.score:9.4f}  {p:>6}  {verdict(detection):<9}{mark} "
            f"{printable(detection.prompt, width)}"
        )
        red = colour and detection.memorized
        file.write(f"\x1b[31m{line}\x1b[0m\n" if red else f"{line}\n")

    return write


def _json(file: IO[str]) -> Write:
    def write(detection: Detection | Broken) -> None:
        file.write(json_text(_row(detection)) + "\n")
        file.flush()

    return write


def _csv(file: IO[str]) -> Write:
    rows = csv.writer(file)
    rows.writerow(_KEYS)
    shown = printable if file.isatty() else str  # a terminal obeys what a program reads

    def write(detection: Detection | Broken) -> None:
        values = _row(detection)
        for several in ("scores", "notes"):
            values[several] = " ".join(map(str, values[several] or ()))
        rows.writerow(
            "" if value is None else shown(value) if isinstance(value, str) else value
            for value in values.values()
        )

    return write


def _row(detection: Detection | Broken) -> dict[str, Any]:
    if isinstance(detection, Broken):
        return dict.fromkeys(_KEYS) | {"prompt": detection.text, "error": detection.reason}
    return {key: getattr(detection, key, None) for key in _KEYS}

"""Detections as a table, JSON lines or CSV, one at a time."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO

from mnemoscope_runtime import InputError

from ..detection import Detection
from ..text import printable

__all__ = ["Format", "opened", "printable", "staged", "writer"]

_KEYS = (
    *("prompt", "score", "scores", "rms", "p_value", "threshold", "memorized", "detector"),
    *("backend", "bundle", "steps", "truncated"),
    *("noises", "passes", "first", "cleared", "notes"),
)
Write = Callable[[Detection], None]


class Format(StrEnum):
    """How results are written."""

    table = "table"
    json = "json"
    csv = "csv"


@contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """The output file, or stdout.

    What is written takes the place of an older file once it is whole (`staged`).

    Raises:
        InputError: it cannot be written.
    """
    if path is None:
        yield sys.stdout
        return
    try:
        beside = staged(path)
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        if beside != path:
            beside.replace(path.resolve())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Choose another --output."
        ) from None


def staged(path: Path) -> Path:
    """Where results are until they are whole: beside the file, or a device or pipe itself."""
    if path.exists() and not path.is_file():
        return path
    return path.resolve().with_name(f"{path.name}.unfinished")


def writer(output: Format, file: IO[str]) -> Write:
    """A function that writes one detection; headers are written at once."""
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

    def write(detection: Detection) -> None:
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
    def write(detection: Detection) -> None:
        row = {key: getattr(detection, key) for key in _KEYS}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()

    return write


def _csv(file: IO[str]) -> Write:
    rows = csv.writer(file)
    rows.writerow(_KEYS)

    def write(detection: Detection) -> None:
        values = {key: getattr(detection, key) for key in _KEYS}
        values["scores"] = " ".join(map(str, detection.scores))
        values["notes"] = " ".join(detection.notes)
        rows.writerow("" if value is None else value for value in values.values())

    return write

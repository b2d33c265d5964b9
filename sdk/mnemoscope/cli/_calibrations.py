"""What the verbs of `mnemoscope calibration` take, and how they show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnemoscope_runtime import CalibrationError, InputError

from ..calibration import Calibration
from ..calibration.remedies import calibrate_command
from ..prompts.printable import counted, json_text, percent, percent_within, printable
from ..screening.opening import own_calibration
from ..shipped import bundle_at, is_shipped

__all__ = ["CalibrationArgument", "file_at", "own_file_at", "show"]

CalibrationArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Calibration file, or a bundle that has one: its directory, or the name of one that "
        "ships.",
        show_default="embedded",
    ),
]
_COLUMNS = {
    "threshold": "threshold",
    "at most": "share of benign prompts, drawn like those it was made with, that it flags at most",
    "surely": "with this confidence",
    "benign": "benign prompts that it rests on",
    "flagged": "how many of those it flags itself",
    "lowest": "the lowest rate that so many can promise",
    "memorised": "share of memorised prompts that it flags [95 % confidence], and of how many",
}


def file_at(given: Path | None) -> Path:
    """The calibration file that is meant: itself, or that of a bundle.

    Args:
        given: A file, a bundle's directory, or the name of what ships; None, the embedded one.

    Raises:
        InputError: as `bundle_at`.
        CalibrationError: it is a directory without one.
    """
    place = bundle_at(given)
    if not place.is_dir():
        return place
    file = own_calibration(place)
    if file is None:
        raise CalibrationError(
            f"{place} has no calibration. If it is a bundle, `{calibrate_command(place)}` makes "
            "one."
        )
    return file


def own_file_at(given: Path) -> Path:
    """The same of one that is to be changed, which what ships is not.

    Raises:
        InputError: it ships; or as `bundle_at`.
        CalibrationError: as `file_at`.
    """
    if is_shipped(bundle_at(given)):
        raise InputError(
            f"The calibration of {given} is part of the installation, and of this version: there "
            "is nothing to update. Name a file of your own."
        )
    return file_at(given)


def show(found: Sequence[Calibration], output_format: str) -> None:
    """Print what was calibrated and what each threshold promises."""
    if output_format == "json":
        typer.echo(json_text([_told(each) for each in found], indent=2))
        return
    cascades = any(each.setting.first for each in found)
    names = ["detector", "steps", "noises", *(["after"] if cascades else []), "backend"]
    table = Table(*names, *_COLUMNS, box=None)
    for each in found:
        setting, tpr = each.setting, each.tpr()
        above = sum(score > each.threshold for score in each.scores)
        caught = "" if tpr is None else f"{percent_within(*tpr)} of {len(each.positives):,}"
        table.add_row(
            *(_text(setting.detector), f"{setting.steps}", f"{setting.noises}"),
            *([_text("" if setting.first is None else str(setting.first))] if cascades else []),
            *(_text(setting.backend), f"{each.threshold:.5g}", percent(each.fpr)),
            *(percent(1 - each.delta), f"{len(each.scores):,}", f"{above:,}"),
            *(percent(each.smallest_fpr, 2), caught),
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    for bundle in dict.fromkeys(each.setting.bundle for each in found):
        typer.echo(printable(f"bundle: {bundle}"))
    for name, meaning in _COLUMNS.items():
        if name != meaning:
            typer.echo(f"{name}: {meaning}")
    _say_origins(found)


def _say_origins(found: Sequence[Calibration]) -> None:
    """Which were measured on another backend, and which chosen among several."""
    for each in found:
        if (carried := each.carried) is not None:
            typer.echo(
                printable(
                    f"{each.setting}: carried over from {carried.backend}; on "
                    f"{counted(carried.prompts, 'prompt')} the two differ by {carried.error:.1e} "
                    "at most"
                )
            )
        if each.among > 1:
            typer.echo(
                printable(
                    f"{each.setting}: chosen among {each.among} settings, all of which keep the "
                    "promise at once"
                )
            )


def _text(name: str) -> Text:
    return Text(printable(name), overflow="fold")


def _told(each: Calibration) -> dict[str, Any]:
    """One calibration, without what it rests on."""
    setting, tpr = each.setting, each.tpr()
    return {
        "bundle": setting.bundle,
        "detector": setting.detector,
        "steps": setting.steps,
        "noises": setting.noises,
        "first": None if setting.first is None else str(setting.first),
        "backend": setting.backend,
        "threshold": each.threshold,
        "fpr": each.fpr,
        "delta": each.delta,
        "benign": len(each.scores),
        "benign_flagged": sum(score > each.threshold for score in each.scores),
        "smallest_fpr": each.smallest_fpr,
        "positives": len(each.positives),
        "tpr": None if tpr is None else dict(zip(("value", "low", "high"), tpr, strict=True)),
        "carried_from": None if each.carried is None else each.carried.backend,
        "among": each.among,
        "named_by": each.named_by,
    }

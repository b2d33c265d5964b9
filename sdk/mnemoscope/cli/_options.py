"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mnemoscope_runtime import InputError
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

from ..cascade import First
from ..detectors import DETECTORS
from ..places import require_folder, require_place
from ..prompts import read_prompt_file

__all__ = [
    "EXIT_CODES",
    "BackendOption",
    "BundleOption",
    "CalibrationOption",
    "ClearOption",
    "ColumnOption",
    "DetectorOption",
    "DeviceOption",
    "EnginesOption",
    "FirstNoisesOption",
    "FirstOption",
    "FirstStepsOption",
    "NoQuotesOption",
    "NoisesOption",
    "StepsOption",
    "ThreadsOption",
    "first_stage",
    "named",
    "numbers",
    "progress_bar",
    "prompts_of",
    "require_folder",
    "require_place",
    "say",
    "verdict_code",
]

EXIT_CODES = """
[bold]Exit codes[/bold]: 0 nothing flagged, 1 something flagged, 2 usage, 3 environment or backend,
4 bundle or calibration mismatch, 5 no verdict: nothing is flagged, but not everything was judged.
A prompt that was cut is judged by what was read: a plain diffusers pipeline reads no more of it.
"""

BundleOption = Annotated[
    Path | None, typer.Option(help="Directory that `export` wrote.", show_default="embedded")
]
CalibrationOption = Annotated[
    Path | None, typer.Option(help="Calibration file.", show_default="the bundle's own")
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="What runs the engines; `mnemoscope doctor` lists what works, auto tries it."
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads an engine may use.")]
DeviceOption = Annotated[
    int | None, typer.Option(help="Which GPU, from 0.", show_default="the first")
]
EnginesOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of engines that `build --engines` wrote.", show_default="BUNDLE/engines"
    ),
]
NoisesOption = Annotated[
    int | None, typer.Option(help="Noises of the bank to use.", show_default="all")
]
StepsOption = Annotated[int, typer.Option(help="Denoising steps to measure.")]
ColumnOption = Annotated[str | None, typer.Option(help="Column of --file that holds the prompt.")]
NoQuotesOption = Annotated[
    bool,
    typer.Option(
        "--no-quotes", help="Quotes in .csv and .tsv are part of the text; every row is a line."
    ),
]
DetectorOption = Annotated[
    str,
    typer.Option(
        help=f"What is measured: {', '.join(DETECTORS)}; of a bundle with taps also taps, "
        "tap:LAYER; with SSCD in a file copy-similarity:FILE.",
        show_default=True,
    ),
]
FirstOption = Annotated[
    str | None,
    typer.Option(
        "--first", help="A cheap detector that goes first: --detector looks only at what it leaves."
    ),
]
FirstStepsOption = Annotated[
    int | None, typer.Option(help="Denoising steps of --first.", show_default="1")
]
FirstNoisesOption = Annotated[int | None, typer.Option(help="Noises of --first.", show_default="1")]
ClearOption = Annotated[
    float | None,
    typer.Option(help="Share of benign prompts that --first is to clear.", show_default="0.9"),
]


def first_stage(
    detector: str | None, steps: int | None, noises: int | None, clear: float | None
) -> First | None:
    """The first of two stages, if there is to be one.

    Raises:
        InputError: an option of it without a detector, or one that cannot be used.
    """
    given = {
        name: value
        for name, value in (("steps", steps), ("noises", noises), ("clear", clear))
        if value is not None
    }
    if detector is not None:
        return First(detector, **given)  # type: ignore[arg-type]
    if given:
        raise InputError(
            "--first-steps, --first-noises and --clear belong to a first stage. Name its detector: "
            "--first magnitude."
        )
    return None


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers with commas between them.

    Raises:
        InputError: they are not.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise InputError(f"{option} takes whole numbers with commas, such as 1,10, not {text!r}.")
    return found


def prompts_of(file: str, column: str | None = None, *, quotes: bool = True) -> list[str]:
    """The prompts of a file; says how many there are.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    prompts = list(
        read_prompt_file(file, column=column, quotes=quotes, longest=LONGEST_PROMPT, tell=say)
    )
    if not prompts:
        raise InputError(f"{named(file)} holds no prompts. Give a file with some.")
    return prompts


def named(file: str | None) -> str:
    """A file of prompts in a message."""
    return "Standard input" if file == "-" else str(file)


def verdict_code(*, flagged: bool, judged: bool) -> int:
    """Exit code of a command that judges prompts; what was not judged never looks like clean."""
    if flagged:
        return 1
    return 0 if judged else 5


def say(note: str) -> None:
    """Tell the user on stderr."""
    typer.echo(f"note: {note}", err=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal; called with how many of how many are done."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mnemoscope_runtime import BackendOptions, Bundle, InputError
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.signatures import signature_of
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

from ..calibration.cascade import First
from ..detectors import CHOICES
from ..outputs import require_folder, require_place
from ..prompts import read_prompt_file
from ..prompts.printable import printable

__all__ = [
    "EXIT_CODES",
    "BackendOption",
    "BundleOption",
    "CalibrationOption",
    "ColumnOption",
    "DetectorOption",
    "FormatOption",
    "NoQuotesOption",
    "NoisesOption",
    "StepsOption",
    "TrustOption",
    "check_columns",
    "gathers",
    "named",
    "numbers",
    "progress_bar",
    "prompts_of",
    "require_bundle",
    "require_folder",
    "require_place",
    "say",
    "say_written",
    "stages",
    "takes_backend_options",
    "takes_first_stage",
    "verdict_code",
]

EXIT_CODES = """
[bold]Exit codes[/bold]: 0 nothing flagged, 1 something flagged, 2 usage, 3 environment or backend,
4 bundle or calibration mismatch, 5 no verdict: nothing is flagged, but not everything was judged.
A prompt that was cut is judged by what was read: a plain diffusers pipeline reads no more of it.
"""

BundleOption = Annotated[
    Path | None,
    typer.Option(
        help="Directory that `export` wrote, or embedded-flow, which ships too.",
        show_default="embedded",
    ),
]
CalibrationOption = Annotated[
    Path | None, typer.Option(help="Calibration file.", show_default="the bundle's own")
]
TrustOption = Annotated[
    Path | None,
    typer.Option(
        help="Public key (PEM): refuse a bundle or calibration that it did not sign.",
        show_default="no signature is looked for",
    ),
]
FormatOption = Annotated[Literal["table", "json"], typer.Option("--format", help="How to tell it.")]
BackendOption = Annotated[
    str,
    typer.Option(help="What runs the graphs; `mnemoscope doctor` lists what works, auto tries it."),
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
        help=f"What is measured: {CHOICES}.",
        show_default=True,
    ),
]
_BACKEND_OPTIONS: dict[str, object] = {  # by the fields of BackendOptions
    "threads": Annotated[int | None, typer.Option(help="CPU threads an engine may use.")],
    "device": Annotated[
        int | None, typer.Option(help="Which GPU, from 0.", show_default="the first")
    ],
    "engines": Annotated[
        Path | None,
        typer.Option(
            help="Folder of plans that `build --engines` wrote.", show_default="the user's cache"
        ),
    ],
    "batch": Annotated[
        int | None,
        typer.Option(
            help="onnxruntime-cuda, onnxruntime-tensorrt: prompts that one run takes.",
            show_default="1",
        ),
    ],
    "contexts": Annotated[
        int | None,
        typer.Option(
            help="tensorrt, tensorrt-rtx: calls that run at once, each in GPU memory of its own.",
            show_default="1",
        ),
    ],
}

_FIRST_OPTIONS = {
    "first": Annotated[
        str | None,
        typer.Option(
            "--first",
            help="A cheap detector that goes first: --detector looks only at what it leaves.",
        ),
    ],
    "first_steps": Annotated[
        int | None, typer.Option(help="Denoising steps of --first.", show_default="1")
    ],
    "first_noises": Annotated[
        int | None, typer.Option(help="Noises of --first.", show_default="1")
    ],
    "clear": Annotated[
        float | None,
        typer.Option(help="Share of benign prompts that --first is to clear.", show_default="0.9"),
    ],
}


def gathers(
    parameter: str, options: Mapping[str, Any], make: Callable[..., object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command that has some options in place of one parameter, which is made of them.

    Args:
        parameter: Its name; keyword-only and without a default.
        options: Annotations of the options, by name; None is the default of each.
        make: Given all of them.
    """

    def gathered(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = make(**{name: given.pop(name) for name in options})
            command(**given, **{parameter: made})

        parameters: list[inspect.Parameter] = []
        for each in inspect.signature(command, eval_str=True).parameters.values():
            if each.name == parameter:
                parameters += (
                    each.replace(name=name, annotation=annotation, default=None)
                    for name, annotation in options.items()
                )
            else:
                parameters.append(each)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer's source
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return gathered


takes_backend_options = gathers("options", _BACKEND_OPTIONS, BackendOptions)


def _first_stage(
    first: str | None, first_steps: int | None, first_noises: int | None, clear: float | None
) -> First | None:
    """The first of two stages, if there is to be one.

    Raises:
        InputError: an option of it without a detector, or one that cannot be used.
    """
    options = {"steps": first_steps, "noises": first_noises, "clear": clear}
    given = {name: value for name, value in options.items() if value is not None}
    if first is not None:
        return First(first, **given)  # type: ignore[arg-type]
    if given:
        raise InputError(
            "--first-steps, --first-noises and --clear belong to a first stage. Name its detector: "
            "--first magnitude."
        )
    return None


takes_first_stage = gathers("first", _FIRST_OPTIONS, _first_stage)


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


def check_columns(column: str | None, no_quotes: bool, files: str, *, given: bool) -> None:
    """Refuse what says how files are read, where no file is.

    Args:
        column: As given, or None.
        no_quotes: Likewise.
        files: The options that name files.
        given: Whether one of them is there.

    Raises:
        InputError: there is none.
    """
    if not given and (column is not None or no_quotes):
        which = "one" if " " in files else "it"
        raise InputError(
            f"--column and --no-quotes are about {files}. Give {which}, or leave them out."
        )


def require_bundle(path: Path) -> None:
    """Refuse what is no bundle at all, before a file is looked for or written in it.

    Raises:
        BundleError: as `Bundle.open`, which reads all of one.
    """
    if not (path / MANIFEST).is_file():
        Bundle.open(path)


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
    typer.echo(f"note: {printable(note)}", err=True)


def say_written(calibration: Path) -> None:
    """Where a calibration is, and that a signature beside it is of what was there before."""
    typer.echo(f"calibration {calibration}")
    if (signature := signature_of(calibration)).exists():
        say(
            f"{signature} is of the file that was there before, so that --trust refuses this one "
            "until it is signed as well (`mnemoscope sign`)."
        )


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal; called with how many of how many are done."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)  # not known before the first is done
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def stages(
    what: str, *, still: bool = False, logged: bool = False
) -> Iterator[Callable[[str], None]]:
    """A line on stderr, if that is a terminal, that lives; called with what is done now.

    Args:
        what: Is done first.
        still: It moves only when it changes: drawing it takes time from what is being timed.
        logged: Elsewhere, as in a log, each stage is a line.
    """
    console = Console(stderr=True)
    shown = console.is_terminal
    clock = () if still else (TimeElapsedColumn(),)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *clock)
    with Progress(
        *columns, console=console, transient=True, disable=not shown, auto_refresh=not still
    ) as progress:
        task = progress.add_task(what, total=None)

        def begins(stage: str) -> None:
            if logged and not shown:
                typer.echo(stage, err=True)
            progress.update(task, description=stage, refresh=still)

        yield begins

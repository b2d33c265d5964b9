"""`mnemoscope evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnemoscope_runtime import InputError

from .. import embedded
from ..bench import environment
from ..detector import open_screener
from ..detectors import DETECTORS
from ..evaluate import PromptLists, judge, score, style_aucs
from ..evaluate.pages import write
from ..evaluate.pictures import new_figure
from ..evaluate.report import Evaluation, Grid
from ..prompts import read_labelled_file
from ._backends import ModelOption, open_torch
from ._options import numbers, progress_bar, prompts_of, say

__all__ = ["command"]


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to judge.", show_default="embedded")
    ] = None,
    positives: Annotated[
        str | None,
        typer.Option(help="File of memorised prompts.", show_default="the embedded model's"),
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help="File of other prompts, written in the same style.",
            show_default="the embedded model's",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of --positives to break the figures down by.")
    ] = None,
    detector: Annotated[
        str, typer.Option(help=f"Detectors, with commas, or all: {', '.join(DETECTORS)}.")
    ] = "magnitude",
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps, with commas.")] = "1",
    noises: Annotated[
        str | None, typer.Option(help="Numbers of noises, with commas.", show_default="all")
    ] = None,
    backend: Annotated[str, typer.Option(help="What runs the engines.")] = "onnxruntime",
    model: ModelOption = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.json, report.md and report.html."),
    ] = None,
) -> None:
    """Judge detectors on prompts known to be memorised and on others: the detection table.

    Intervals are of a bootstrap over groups of near duplicates. What the text alone gives away is
    shown beside it.

    Needs `pip install 'mnemoscope\\[calibrate]'`, and the extra `plot` for --output.
    """
    lists = _lists(positives, negatives, column, label, own=bundle is None)
    names = list(DETECTORS) if detector == "all" else [n.strip() for n in detector.split(",")]
    if output is not None:
        _prepare(output)
    runs = open_torch(backend, bundle, model, threads)
    path = bundle or embedded.BUNDLE
    with open_screener(path, runs, threads) as screener, progress_bar("measuring") as progress:
        scored = score(
            screener,
            lists,
            detectors=names,
            steps=numbers(steps, "--steps"),
            noises=numbers(noises, "--noises") if noises is not None else None,
            progress=progress,
        )
        manifest = screener.bundle.manifest
        subject = {
            "model": manifest.model.id,
            "weights_sha256": manifest.model.weights_sha256,
            "bundle": screener.bundle.id,
            "precision": manifest.precision,
            "backend": screener.backend.name,
            "noises": "the bundle's noise bank, the same for every prompt",
        }
    evaluation = Evaluation(
        subject=subject,
        environment=environment(threads),
        lists=lists,
        scored=scored,
        rows=judge(scored, lists),
        style=style_aucs(lists),
    )
    _show(evaluation)
    for file in write(evaluation, output) if output is not None else ():
        typer.echo(f"report {file}")


def _lists(
    positives: str | None, negatives: str | None, column: str | None, label: str | None, own: bool
) -> PromptLists:
    if (positives is None) != (negatives is None):
        raise InputError("Give both --positives and --negatives, or neither.")
    if positives is None or negatives is None:
        if not own:
            raise InputError(
                "The embedded captions mean nothing to another model. Give files of prompts that "
                "this one memorised (--positives) and did not (--negatives)."
            )
        if label is not None or column is not None:
            raise InputError("--label and --column name columns of files. Give --positives.")
        known, others = (
            [row.prompt for row in embedded.read_prompts(*splits)]
            for splits in (("memorized",), ("seen", "held_out"))
        )
        return PromptLists.of(known, others, tell=_quiet)
    others = prompts_of(negatives, column)
    if label is None:
        return PromptLists.of(prompts_of(positives, column), others, tell=_quiet)
    pairs = list(read_labelled_file(positives, label=label, column=column))
    known, labels = [prompt for prompt, _ in pairs], [kind for _, kind in pairs]
    return PromptLists.of(known, others, labels=labels, tell=_quiet)


def _quiet(_: str) -> None:
    """Notes are shown with the table, and written into reports."""


def _prepare(output: Path) -> None:
    """Find out before measuring for an hour whether a report can be written."""
    new_figure(1, 1)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror or error}. Choose another --output."
        ) from None


def _show(evaluation: Evaluation) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width, and figures must not be cut
    for grid in evaluation.grids():
        console.print(_table(grid))
    for note in evaluation.notes:
        say(note)


def _table(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left", box=None)
    for name in grid.header:
        table.add_column(name)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table

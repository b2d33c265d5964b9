"""`mnemoscope calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnemoscope_runtime import BackendOptions, CalibrationError, InputError, Screener

from .. import embedded
from ..calibration import CalibrationFile
from ..calibration.cascade import First
from ..calibration.choosing import Choice, choose
from ..calibration.making import calibrate
from ..calibration.wording import describe, doubt
from ..detector import Detector
from ..detectors import CHOICES
from ..evaluate.summary import plot
from ..plotting import require_plots
from ..screening.opening import CALIBRATION, open_screener
from ..shipped import is_shipped, name_of
from ._backends import choose_backend, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._options import (
    BackendOption,
    NoQuotesOption,
    TrustOption,
    numbers,
    progress_bar,
    prompts_of,
    require_bundle,
    require_place,
    say,
    say_written,
    takes_backend_options,
    takes_first_stage,
)

__all__ = ["command"]


@takes_backend_options
@takes_first_stage
def command(
    benign: Annotated[
        str, typer.Option(help="File of prompts that the model did not memorise, like yours.")
    ],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to calibrate.", show_default="embedded")
    ] = None,
    positives: Annotated[
        str | None,
        typer.Option(
            help="File of memorised prompts, for the true-positive rate; a detector that learns "
            "weighs its parts by half of them."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    no_quotes: NoQuotesOption = False,
    fpr: Annotated[float, typer.Option(help="False-positive rate to promise.")] = 0.01,
    delta: Annotated[
        float, typer.Option(help="Chance that the promise is broken, over the draw of prompts.")
    ] = 0.05,
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps, with commas.")] = "1",
    noises: Annotated[
        str | None, typer.Option(help="Numbers of noises, with commas.", show_default="all")
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help=f"Detectors, with commas: {CHOICES}. auto: magnitude, and taps if the bundle has "
            "some."
        ),
    ] = "magnitude",
    *,
    first: First | None,
    target_tpr: Annotated[
        float | None,
        typer.Option(
            help="Keep only the cheapest of all these settings that flags this share of "
            "--positives."
        ),
    ] = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    model: ModelOption = None,
    options: BackendOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; its other settings stay.",
            show_default=f"BUNDLE/{CALIBRATION}",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="PNG of the last setting's scores and ROC.")
    ] = None,
) -> None:
    """Set thresholds that keep a promise: at most --fpr of benign prompts are flagged.

    The promise holds for prompts drawn like those of --benign, with a probability of 1 - --delta
    over their draw. `mnemoscope screen` then gives verdicts and p-values.

    With --target-tpr the promise holds for whichever setting is chosen.

    Needs the extra `calibrate`.
    """
    check_model(model, [backend], [name.strip() for name in detector.split(",")])
    lengths = numbers(steps, "--steps")
    counts = numbers(noises, "--noises") if noises is not None else None
    others = prompts_of(benign, column, quotes=not no_quotes)
    known = prompts_of(positives, column, quotes=not no_quotes) if positives is not None else []
    path = bundle or embedded.BUNDLE
    if output is None and is_shipped(path):
        raise InputError(
            "This bundle is part of the installation and calibrated. To calibrate it anew name a "
            "file of your own, --output OWN.json, and then screen with --calibration OWN.json."
        )
    require_bundle(path)
    target = output or path / CALIBRATION
    require_place(target, "--output", regular=True)
    if picture is not None:
        require_place(picture, "--plot", ".png")
        require_plots(otherwise="leave out --plot")
    before = CalibrationFile(())
    if target.exists():
        before = CalibrationFile.read(target, trust=trust)
    runs, told = choose_backend(backend, bundle, model, options)
    # without the bundle's own calibration, which is to be made and may be an old one
    with open_screener(path, runs, told, (), trust=trust) as screener:
        say_unused(backend, options, screener.backend)
        try:
            before.check(screener.bundle.id, path)
        except CalibrationError as error:
            raise CalibrationError(f"{error} Or name another --output.") from None
        statistics = open_detectors(names(detector, screener), bundle, model)
        for statistic in statistics:
            screener.prepare(*statistic.graphs(screener))
        with progress_bar("calibrating") as progress:
            if target_tpr is None:
                found = [
                    each
                    for i, statistic in enumerate(statistics)
                    for each in calibrate(
                        Detector(screener, detector=statistic, first=first),
                        others,
                        positives=known,
                        fpr=fpr,
                        delta=delta,
                        steps=lengths,
                        noises=counts,
                        progress=progress,
                        tell=say if i == 0 else _told,
                    )
                ]
            else:
                choice = choose(
                    screener,
                    others,
                    known,
                    target=target_tpr,
                    detectors=statistics,
                    first=first,
                    fpr=fpr,
                    delta=delta,
                    steps=lengths,
                    noises=counts,
                    progress=progress,
                    tell=say,
                )
    if target_tpr is not None:
        show(choice)
        found = [choice.chosen.calibration]
    CalibrationFile.extend(target, found, trust=trust)
    for each in found:
        typer.echo(describe(each))
        if (note := doubt(each)) is not None:
            say(note)
    say_written(target)
    if target_tpr is not None:
        own = "" if bundle is None else f" --bundle {name_of(bundle)}"
        file = "" if output is None else f" --calibration {output}"
        typer.echo(f"use it: mnemoscope screen{own}{file} {found[0].setting.options}")
    if picture is not None:
        last = found[-1]
        arrays = np.array(last.positives, np.float64), np.array(last.scores, np.float64)
        plot(picture, *arrays, threshold=last.threshold, label=str(last.setting))
        typer.echo(f"plot {picture}")


def names(detectors: str, screener: Screener) -> list[str]:
    """Detectors by name; "auto" is the magnitude, and all taps together if the bundle has some."""
    if detectors == "auto":
        return ["magnitude", *(["taps"] if screener.taps else [])]
    return list(dict.fromkeys(name.strip() for name in detectors.split(",")))


def show(choice: Choice) -> None:
    """Print the candidates, the cheapest first."""
    table = Table(
        *("detector", "steps", "noises", "MFLOP", "threshold", "flags of memorised [95 %]", ""),
        box=None,
    )
    reached = next((each for each in choice.candidates if each.tpr >= choice.target), None)
    for each in choice.candidates:
        setting = each.calibration.setting
        table.add_row(
            *(Text(setting.detector), str(setting.steps), str(setting.noises)),
            *(f"{each.flops / 1e6:,.0f}", f"{each.calibration.threshold:.5g}"),
            f"{each.tpr:.3f} [{each.low:.3f}, {each.high:.3f}]",
            "chosen" if each is reached else "",
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def _told(_: str) -> None:
    """What was said for the first detector holds for all."""

"""`mnemoscope calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mnemoscope_runtime import CalibrationError, InputError

from .. import embedded
from ..calibrating import calibrate
from ..calibration import Calibration, CalibrationFile
from ..detector import CALIBRATION, Detector, open_screener
from ..report import plot
from ._backends import ModelOption, open_torch
from ._options import DetectorOption, numbers, progress_bar, prompts_of, say

__all__ = ["command", "describe"]


def command(
    benign: Annotated[
        str, typer.Option(help="File of prompts that the model did not memorise, like yours.")
    ],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to calibrate.", show_default="embedded")
    ] = None,
    positives: Annotated[
        str | None, typer.Option(help="File of memorised prompts, for the true-positive rate.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    fpr: Annotated[float, typer.Option(help="False-positive rate to promise.")] = 0.01,
    delta: Annotated[
        float, typer.Option(help="Chance that the promise is broken, over the draw of prompts.")
    ] = 0.05,
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps, with commas.")] = "1",
    noises: Annotated[
        str | None, typer.Option(help="Numbers of noises, with commas.", show_default="all")
    ] = None,
    detector: DetectorOption = "magnitude",
    backend: Annotated[str, typer.Option(help="What runs the engines.")] = "onnxruntime",
    model: ModelOption = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
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

    Needs `pip install 'mnemoscope\\[calibrate]'`.
    """
    others = prompts_of(benign, column)
    known = prompts_of(positives, column) if positives is not None else []
    path = bundle or embedded.BUNDLE
    if bundle is None and output is None:
        raise InputError(
            "The embedded bundle is part of the installation and calibrated. Name a file with "
            "--output to calibrate it anew."
        )
    target = output or path / CALIBRATION
    before = CalibrationFile.read(target) if target.exists() else CalibrationFile(())
    runs = open_torch(backend, bundle, model, threads)
    # without the bundle's own calibration, which is to be made and may be an old one
    with Detector(open_screener(path, runs, threads, (detector,)), detector=detector) as screen:
        try:
            before.check(screen.bundle_id)
        except CalibrationError as error:
            raise CalibrationError(f"{target}: {error} Or name another --output.") from None
        with progress_bar("calibrating") as progress:
            found = calibrate(
                screen,
                others,
                positives=known,
                fpr=fpr,
                delta=delta,
                steps=numbers(steps, "--steps"),
                noises=numbers(noises, "--noises") if noises is not None else None,
                progress=progress,
                tell=say,
            )
    before.with_(found).write(target)
    for each in found:
        typer.echo(describe(each))
    typer.echo(f"calibration {target}")
    if picture is not None:
        last = found[-1]
        arrays = np.array(last.positives, np.float64), np.array(last.scores, np.float64)
        plot(picture, *arrays, threshold=last.threshold, label=str(last.setting))
        typer.echo(f"plot {picture}")


def describe(calibration: Calibration) -> str:
    """A calibration, and what it promises, in a sentence."""
    setting, count = calibration.setting, len(calibration.scores)
    above = sum(score > calibration.threshold for score in calibration.scores)
    text = (
        f"{setting}: threshold {calibration.threshold:.5g}. With {1 - calibration.delta:.0%} "
        f"confidence it flags at most {calibration.fpr:.3g} of benign prompts drawn like these "
        f"{count:,} ({above} of them lie above it; as many can promise "
        f"{calibration.smallest_fpr:.2g} at best)."
    )
    if (found := calibration.tpr()) is not None:
        rate, low, high = found
        text += (
            f" Of {len(calibration.positives):,} memorised prompts it flags {rate:.3f} "
            f"[{low:.3f}, {high:.3f}]."
        )
    return text

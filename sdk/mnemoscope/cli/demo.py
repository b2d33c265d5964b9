"""`mnemoscope demo`."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..detector import Detector
from ..embedded import read_prompts
from ..evaluate.summary import plot, summary, write_json
from ..plotting import require_plots
from ..prompts.printable import counted
from ._options import StepsOption, require_folder, say
from ._writers import Format, writer

__all__ = ["command"]

_SHOWN = 10  # of each kind


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for plot and report.")],
    steps: StepsOption = 1,
    noises: Annotated[int | None, typer.Option(help="Noises to use.", show_default="all")] = None,
) -> None:
    """Screen the embedded prompts with the embedded model; show how well it tells them apart."""
    require_folder(output, "--output")
    require_plots()
    output.mkdir(parents=True, exist_ok=True)
    positives = [row.prompt for row in read_prompts("memorized")]
    negatives = [row.prompt for row in read_prompts("seen", "held_out")]
    with Detector.load(uncalibrated="score") as detector:
        start = time.perf_counter()
        memorized = detector.screen(positives, steps=steps, noises=noises)
        others = detector.screen(negatives, steps=steps, noises=noises)
        seconds = time.perf_counter() - start
        unjudged = detector.missing(steps=steps, noises=noises)
    rng = random.Random(0)
    write = writer(Format.table, sys.stdout)
    for title, detections in (("memorised", memorized), ("other", others)):
        typer.echo(f"-- {_SHOWN} of {len(detections)} {title} prompts")
        for detection in rng.sample(detections, _SHOWN):
            write(detection)
    figures = summary(memorized, others)
    count = len(positives) + len(negatives)
    typer.echo(
        f"AUC {figures['auc']}  TPR@1%FPR {figures['tpr_at_1_percent_fpr']}  "
        f"({len(positives)} memorised against {counted(len(negatives), 'other')}, "
        f"{counted(steps, 'step')}, {counted(len(memorized[0].scores), 'noise')}, "
        f"{1000 * seconds / count:.1f} ms per prompt on {memorized[0].backend}; in brackets: "
        "95 % intervals)"
    )
    report, picture = output / "demo.json", output / "demo.png"
    write_json(report, figures, memorized, others)
    scores = [np.array([d.score for d in each]) for each in (memorized, others)]
    plot(picture, *scores, threshold=memorized[0].threshold)
    if unjudged is not None:
        say(f"no verdicts. {unjudged}")
    typer.echo(f"plot {picture}\nreport {report}")

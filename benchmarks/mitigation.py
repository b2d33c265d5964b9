"""`python -m benchmarks.mitigation`: every strategy on the embedded model, and by SSCD too.

What `mnemoscope mitigate --compare` draws: the memorised captions that no setting was chosen on,
and held-out ones, by every strategy and by `auto`, which compares by the stand-in. With
--descriptor SSCD's verdict on the very same pictures stands beside the stand-in's: each against its
caption's training picture as the model's VAE renders it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from mnemoscope import CalibrationFile, Detector, embedded
from mnemoscope.benchmark.latency import environment
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope.drawing.alignment import load_alignment
from mnemoscope.drawing.copy_detection import load_descriptor
from mnemoscope.mitigate import (
    LADDER,
    STRATEGIES,
    Comparison,
    Kit,
    Mitigator,
    Painter,
    Rule,
    Sampling,
    Yardstick,
    compare,
)
from mnemoscope.mitigate.compare import flags
from mnemoscope.mitigate.report import ComparisonReport
from mnemoscope.outputs import write_files
from mnemoscope.prompts.printable import json_text
from mnemoscope_runtime import Bundle

from .running import run_main
from .second_opinion import CUTS, HEADER, SecondOpinion, add_descriptor

LEARNT_ON = 20  # benign captions
Cosines = NDArray[np.float64]  # [P, S]


def second_cosines(found: Comparison, second: SecondOpinion) -> dict[str, Cosines]:
    """Of every strategy's pictures with their captions' own training pictures."""
    rows = [p for p in range(len(found.prompts)) for _ in found.seeds]
    shape = len(found.prompts), len(found.seeds)
    return {
        each.strategy: np.reshape(
            second.own([picture.image for row in each.pictures for picture in row], rows), shape
        )
        for each in found.drawings
    }


def markdown(found: Comparison, by_second: Mapping[str, Cosines]) -> str:
    """How many pictures are copies, and how many captions have one, by both; of these the share."""
    judges = ["stand-in", *(HEADER if by_second else ())]
    header = ["strategy", *(f"copies, {each}" for each in judges)]
    header += [f"captions, {each} [95 %]" for each in judges]
    header += ["alignment [95 %]", "score", "passes to plan"]
    lines = [header, ["---"] * len(header)]
    for drawings in found.drawings:
        row, cosines = found.row(drawings), by_second.get(drawings.strategy)
        copied = [drawings.likeness > found.copied_above]
        copied += [cosines > cut for cut in CUTS] if cosines is not None else []
        figures = str(row.alignment), f"{row.score:.2f}", f"{row.passes:.0f}"
        counts = [str(each.sum()) for each in copied]
        lines.append([row.strategy, *counts, *(_share(each.any(1)) for each in copied), *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(captions: NDArray[np.bool_]) -> str:
    """How many, and the exact interval of their share: of none a bootstrap would say nothing."""
    low, high = proportion_interval(int(captions.sum()), len(captions))
    return f"{captions.sum()} [{low:.0%}, {high:.0%}]"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--strategies", help="with commas (default: all)")
    parser.add_argument("--limit", type=int, help="memorised captions (default: 50)")
    parser.add_argument("--held-out", type=int, default=20, help="captions it never saw; 0: none")
    parser.add_argument("--seeds", type=int, default=5)
    add_descriptor(parser)
    args = parser.parse_args(argv)

    memorized = [row.prompt for row in embedded.read_prompts("memorized")][1::2][: args.limit]
    pictures = embedded.memorized_pictures()[1::2][: args.limit]
    held_out = [row.prompt for row in embedded.read_prompts("held_out")[: args.held_out]]
    learnt_on = [row.prompt for row in embedded.read_prompts("calibration")[:LEARNT_ON]]

    painter, sampling = Painter.load(), Sampling()
    calibration = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    yardstick = Yardstick.of(calibration, Bundle.open(embedded.BUNDLE), sampling)
    judges = load_descriptor(), load_alignment()
    mitigator = Mitigator(painter, *judges, yardstick, sampling, learnt_on)
    second = SecondOpinion.load(args.descriptor, painter, pictures)
    kit = Kit(painter, yardstick, None, learnt_on, sampling)
    names = [*STRATEGIES] if args.strategies is None else args.strategies.split(",")
    strategies = [kit.make(name) for name in dict.fromkeys([*names, *LADDER])]
    rule = Rule(mitigator.descriptor.copied_above)

    with Detector.load() as detector, Progress(console=Console(stderr=True)) as bar:

        def drawn(what: str, prompts: list[str], own: bool) -> Comparison:
            task = bar.add_task(what, total=None)
            found = compare(
                mitigator,
                prompts,
                strategies,
                seeds=range(args.seeds),
                references=pictures if own else None,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            return found.with_auto(LADDER, flags(found, mitigator, detector, rule), rule)

        report = ComparisonReport(
            drawn("memorised", memorized, True),
            pictures,
            drawn("held-out", held_out, False) if held_out else None,
            {
                "descriptor": mitigator.descriptor.name,
                "second descriptor": second and second.descriptor.name,
                "strategies": {each.name: repr(each)[:300] for each in strategies},
                "environment": environment(torch.get_num_threads()),
            },
        )
    by_second = {} if second is None else second_cosines(report.memorized, second)
    figures = report.as_json() | {"sscd": {name: v.tolist() for name, v in by_second.items()}}
    _, *benign = report.markdown().split("\n\n", 1)
    tables = "\n\n".join([markdown(report.memorized, by_second), *benign])
    contents = {
        "mitigation.md": tables.encode(),
        "mitigation.json": json_text(figures, indent=1).encode(),
        "mitigation.png": report.plot(),
    }
    print(tables)
    for path in write_files(args.output, contents):
        print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)

"""`python -m benchmarks.cascade`: what a cascade saves, and what it misses.

Full settings: the magnitude at 10 steps on 4 noises and, of a bundle with taps, `taps` at 3 steps
on 4 noises. First stages: both at 1 step on 1 noise. All are calibrated on the embedded
`calibration` captions at 1 % with 95 % confidence, and judged on the 100 memorised and the 300
held-out ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from mnemoscope import CalibrationFile, Detector, First, calibrate, embedded
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope.detectors import Features
from mnemoscope.screening.stages import Stage
from mnemoscope_runtime import Screener, Tokens

from .running import run_main

FULL = (("taps", 3, 4), ("magnitude", 10, 4))  # detector, steps, noises
CLEARED = (0.5, 0.8, 0.9, 0.95)
Prompts = Sequence[str] | Tokens


class Memory:
    """Measures a prompt once a setting, however many cascades ask for it."""

    def __init__(self, measure: Callable[[Stage, Prompts], Features]) -> None:
        self._measure = measure
        self._known: dict[tuple[object, ...], Features] = {}

    def of(self, stage: Stage, prompts: Prompts) -> Features:
        """What `Stage.measure` says."""
        tokens = prompts
        if not isinstance(tokens, Tokens):
            tokens = stage.screener.tokenizer.encode(tokens)
        names = [(str(stage), row.tobytes()) for row in tokens.ids]
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            cut = tuple(tokens.truncated[i] for i in new)
            found = self._measure(stage, Tokens(tokens.ids[new], cut))
            self._known |= {names[i]: row for i, row in zip(new, found, strict=True)}
        return np.stack([self._known[name] for name in names])


def plan(taps: bool) -> Iterator[tuple[str, int, int, First | None]]:
    """Detector, steps, noises and first stage of every row."""
    cheap = ["taps", "magnitude"] if taps else ["magnitude"]
    yield from ((name, 1, 1, None) for name in cheap)
    for detector, steps, noises in FULL:
        if detector in cheap:
            yield detector, steps, noises, None
            for name, clear in itertools.product(cheap, CLEARED):
                yield detector, steps, noises, First(name, clear=clear)


def judge(detector: Detector, lists: dict[str, list[str]], steps: int, noises: int) -> dict:
    """Calibrate one setting and screen what it was not calibrated on."""
    found = calibrate(detector, lists["calibration"], steps=(steps,), noises=(noises,))
    known = Detector(
        detector.screener,
        CalibrationFile(tuple(found)),
        detector=detector.statistic.name,
        first=detector.first,
    )
    row: dict = {
        "setting": str(found[0].setting).partition(", onnxruntime")[0],
        "first": None if detector.first is None else detector.first.detector,
        "clear": None if detector.first is None else detector.first.clear,
        "benign": len(found[0].scores),
        "threshold": found[0].threshold,
    }
    stage = Stage.of(detector.screener, detector.statistic, steps, noises)
    for split in ("memorized", "held_out"):
        seen = known.screen(lists[split], steps=steps, noises=noises)
        flags = sum(bool(each.memorized) for each in seen)
        passed = np.array([not each.cleared for each in seen])
        flops = stage.flops * (1.0 if detector.before is None else float(passed.mean()))
        row[split] = {
            "prompts": len(seen),
            "flagged": flags,
            "rate": flags / len(seen),
            "interval": proportion_interval(flags, len(seen)),
            "passes": float(np.mean([each.passes for each in seen])),
            "flops": flops + (0 if detector.before is None else detector.before.flops),
            "cleared": float(1 - passed.mean()),
        }
    return row


def shown(rows: list[dict]) -> Table:
    """The rows for people."""
    table = Table("setting", "memorised flagged", "held-out flagged", "passes", "MFLOP", "cleared")
    for row in rows:
        caught, held = row["memorized"], row["held_out"]
        table.add_row(
            row["setting"],
            *(
                f"{each['rate']:.3f} [{{:.3f}}, {{:.3f}}]".format(*each["interval"])
                for each in (caught, held)
            ),
            *(f"{held['passes']:.1f}", f"{held['flops'] / 1e6:,.0f}", f"{held['cleared']:.3f}"),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--bundle", type=Path, default=embedded.BUNDLE)
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    lists = {
        split: [row.prompt for row in embedded.read_prompts(split)[: args.limit]]
        for split in ("calibration", "memorized", "held_out")
    }
    rows: list[dict] = []
    path, memory = args.output / "cascade.json", Memory(Stage.measure)
    with (
        Screener.open(args.bundle, threads=args.threads) as screener,
        patch.object(Stage, "measure", lambda stage, prompts: memory.of(stage, prompts)),
    ):
        for detector, steps, noises, first in plan(bool(screener.taps)):
            found = Detector(screener, detector=detector, first=first)
            rows.append(judge(found, lists, steps, noises))
            path.write_text(json.dumps(rows, indent=1) + "\n")
    Console(width=170).print(shown(rows))
    Console().print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)

"""`python -m benchmarks.drift`: how often does a service's test for drift give alarm, and of what?

Windows of 1,000 prompts as `mnemoscope serve` keeps them, an alarm below 0.001 (as the rules in
deploy have it). Scores are those of the embedded model's captions, first step, one noise: held-out
ones, drawn with replacement, some of them replaced by memorised ones, or all times a factor. False
alarms are counted in streams of numbers that are drawn as the calibration's are, tested every 100
prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mnemoscope import Calibration, Detector, embedded
from mnemoscope.calibration import Drift
from mnemoscope.serve.service.drift import WINDOW

from .running import run_main

LEVEL, EVERY, LASTS = 0.001, 100, 5  # LASTS tests in a row are an alarm that goes on
STREAM = 20_000  # prompts
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
FACTORS = (1.02, 1.05, 1.1, 1.2)
Scores = NDArray[np.float64]


def alarms(calibration: Calibration, windows: Sequence[Scores]) -> float:
    """The share of windows that give alarm."""
    return float(np.mean([calibration.drift(each.tolist(), LEVEL).drifted for each in windows]))


def false_alarms(benign: int, streams: int, rng: np.random.Generator) -> dict[str, Any]:
    """Of services with a calibration each, how many ever give alarm though nothing changes."""
    ever = lasting = 0
    for _ in range(streams):
        known, traffic = np.sort(rng.random(benign)), rng.random(STREAM)
        low = [
            Drift.of(traffic[end - WINDOW : end].tolist(), known, LEVEL).drifted
            for end in range(WINDOW, STREAM + 1, EVERY)
        ]
        ever += any(low)
        lasting += any(all(low[k : k + LASTS]) for k in range(len(low) - LASTS + 1))
    return {"benign": benign, "streams": streams, "ever": ever, "lasting": lasting}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--windows", type=int, default=500, help="of each kind of traffic")
    parser.add_argument("--streams", type=int, default=1000, help="services without drift")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with Detector.load(threads=1) as detector:
        calibration = detector.calibrated(noises=1)
        held, memorised = (
            np.array([each.score for each in detector.screen(prompts, noises=1)])
            for split in ("held_out", "memorized")
            for prompts in [[row.prompt for row in embedded.read_prompts(split)]]
        )
    assert calibration is not None

    def mixed(share: float) -> Scores:
        count = rng.binomial(WINDOW, share)
        parts = rng.choice(held, WINDOW - count), rng.choice(memorised, count)
        return np.concatenate(parts)

    report = {
        "shares": {
            share: alarms(calibration, [mixed(share) for _ in range(args.windows)])
            for share in SHARES
        },
        "factors": {
            factor: {
                "alarms": alarms(calibration, [factor * mixed(0) for _ in range(args.windows)]),
                "flagged": float(np.mean(factor * held > calibration.threshold)),
            }
            for factor in FACTORS
        },
        "false": false_alarms(len(calibration.scores), args.streams, rng),
    }
    path = args.output / "drift.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    table = Table("traffic", "windows with alarm")
    for share, found in report["shares"].items():
        table.add_row(f"{share:.0%} memorised", f"{found:.1%}")
    for factor, each in report["factors"].items():
        table.add_row(
            f"scores times {factor} (flagged: {each['flagged']:.1%})", f"{each['alarms']:.1%}"
        )
    Console().print(table)
    found = report["false"]
    Console().print(
        f"of {found['streams']} without drift, over {STREAM:,} prompts: {found['ever']} ever, "
        f"{found['lasting']} for {LASTS * EVERY} prompts on end; figures {path}"
    )


if __name__ == "__main__":
    run_main(main)

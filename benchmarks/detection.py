"""`python -m benchmarks.detection`: how well the magnitude tells memorised prompts, on the bundle.

AUC and TPR@1%FPR (strictly below 1 %) of the embedded memorised prompts against seen and held-out
ones, for steps {1, 10, 50} x noises {1, 4}, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import Detector, embedded
from mnemoscope.evaluate import auc, bootstrap, tpr_at_fpr

from .running import run_main

STEPS, NOISES = (1, 10, 50), (1, 4)
SETS = ("seen", "held_out", "held_out without tone words")
_CHUNK = 20


def measure(detector: Detector, prompts: list[str], name: str) -> np.ndarray:
    """Magnitudes, [prompt, noise, step]."""
    starts = range(0, len(prompts), _CHUNK)
    chunks = [
        detector.magnitudes(prompts[i : i + _CHUNK], steps=max(STEPS), noises=max(NOISES))
        for i in track(starts, name, console=Console(stderr=True))
    ]
    return np.concatenate(chunks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = {
        split: embedded.read_prompts(split)[: args.limit]
        for split in ("memorized", "seen", "held_out")
    }
    with Detector.load(uncalibrated="score") as detector:
        scores = {
            split: measure(detector, [row.prompt for row in found], split)
            for split, found in rows.items()
        }
    plain = np.array([not row.tone for row in rows["held_out"]])
    scores["held_out without tone words"] = scores["held_out"][plain]
    table = Table("steps", "noises", "against", "AUC [95 %]", "TPR@1%FPR [95 %]")
    report = []
    for steps in STEPS:
        for noises in NOISES:
            for name in SETS:
                positives, negatives = (
                    scores[each][:, :noises, :steps].mean((1, 2)) for each in ("memorized", name)
                )
                area = bootstrap(auc, positives, negatives)
                tpr = bootstrap(tpr_at_fpr, positives, negatives)
                table.add_row(str(steps), str(noises), name, str(area), str(tpr))
                entry = {"steps": steps, "noises": noises, "against": name}
                report.append({**entry, "auc": asdict(area), "tpr_at_1_percent_fpr": asdict(tpr)})
    console = Console(width=110)
    console.print(table)
    path = args.output / "detection.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)

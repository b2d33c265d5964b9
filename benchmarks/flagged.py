"""`python -m benchmarks.flagged BUNDLE`: what a bundle that ships flags out of the box.

Of the memorised, seen and held-out captions, with each detector at the threshold that it ships
with: one step, all noises. BUNDLE is a name of what ships, `embedded` or `embedded-flow`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mnemoscope import Detection, Detector, embedded

from .running import run_main

DETECTORS = ("magnitude", "taps")
SPLITS = ("memorized", "seen", "held_out")


def flagged(bundle: str, detector: str, limit: int | None) -> dict[str, Any]:
    """How many captions of each list are flagged, and how many there are."""
    counts = {}
    with Detector.load(bundle, detector=detector) as screening:
        for split in SPLITS:
            found = screening.screen([row.prompt for row in embedded.read_prompts(split)[:limit]])
            counts[split] = {"flagged": sum(map(_is_flagged, found)), "of": len(found)}
    return {"detector": detector, **counts}


def _is_flagged(found: Detection) -> bool:
    return found.memorized is True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", choices=tuple(embedded.SHIPPED))
    parser.add_argument("--limit", type=int, help="captions of each kind (default: all)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = [flagged(args.bundle, each, args.limit) for each in DETECTORS]
    table = Table("detector", *SPLITS)
    for row in rows:
        table.add_row(
            row["detector"], *(f"{row[each]['flagged']} of {row[each]['of']}" for each in SPLITS)
        )
    Console().print(table)
    file = args.output / f"{args.bundle}-flagged.json"
    file.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"raw figures {file}")


if __name__ == "__main__":
    run_main(main)

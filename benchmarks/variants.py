"""`python -m benchmarks.variants`: what other timesteps and sizes of latents cost, and are worth.

The embedded model, exported in each way with the taps of `auto`: the 100 memorised captions against
the 300 held-out ones at the first step, as `mnemoscope evaluate` judges them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mnemoscope import embedded
from mnemoscope.evaluate import PromptLists, judge, score
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle
from mnemoscope_runtime import Screener

from .running import run_main

DETECTORS = ("magnitude", "tap:up_blocks.0.resnets.1", "taps")
NOISES = (1, 4)
VARIANTS: dict[str, dict[str, Any]] = {
    "8x8, 981 (default)": {},
    **{f"8x8, {t}": {"timestep": t} for t in (901, 801, 601, 401, 201)},
    **{f"{n}x{n}, 981": {"latent_size": n} for n in (2, 4, 6, 12)},
}


def rows_of(
    model: StableDiffusion, options: dict[str, Any], lists: PromptLists, threads: int
) -> Iterator[dict[str, Any]]:
    """One for each detector and number of noises, with the arithmetic of a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export_bundle(model, bundle, ExportOptions(taps="auto", **options))
        with Screener.open(bundle, threads=threads) as screener:
            flops = screener.bundle.manifest.flops
            scored = score(screener, lists, detectors=DETECTORS, noises=NOISES)
    for row in judge(scored, lists):
        unet = flops["screen"] - flops["text_encoder"]
        yield {
            "detector": row.detector,
            "noises": row.noises,
            "flops": flops["text_encoder"] + row.noises * unet,
            "unet_flops_per_noise": unet,
            "auc": asdict(row.auc),
            "tpr_below_1_percent_fpr": asdict(row.tpr),
            "shown": (str(row.auc), str(row.tpr)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    parser.add_argument("--only", help="variants whose names hold this")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = StableDiffusion.load(embedded.MODEL)
    positives, negatives = (
        [row.prompt for row in embedded.read_prompts(split)[: args.limit]]
        for split in ("memorized", "held_out")
    )
    lists = PromptLists.of(positives, negatives, tell=print)
    console, report = Console(width=130), {}
    table = Table("latents, timestep", "detector", "noises", "MFLOP", "AUC [95 %]", "TPR [95 %]")
    for name, options in VARIANTS.items():
        if args.only is not None and args.only not in name:
            continue
        report[name] = list(rows_of(model, options, lists, args.threads))
        for row in report[name]:
            shown = row.pop("shown")
            flops = f"{row['flops'] / 1e6:.0f}"
            table.add_row(name, row["detector"], str(row["noises"]), flops, *shown)
        console.print(f"{name} done")
    console.print(table)
    path = args.output / "variants.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)

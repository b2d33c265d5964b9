"""`python -m benchmarks.embedded_flow_guidance`: how guidance changes what the flow recites.

The 100 memorised captions, drawn from two noises in 28 steps, against the training pictures: in
latents, whose variance is 1, and as SSCD sees them, without which there is no benchmark:
docs/mitigation.md#sscd says what it is and where its file comes from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.table import Table

from mnemoscope import embedded
from mnemoscope.drawing.copy_detection import load_descriptor
from mnemoscope_export import load_network
from recipes.embedded.quality import copies
from recipes.embedded_flow.pack import draw, read_trained, to_latents, to_pixels

from .running import run_main

GUIDANCES = (1.0, 2.0, 3.5, 7.0)  # 1 is none; 7 the default of Stable Diffusion 3's pipeline
SEEDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--descriptor",
        default="sscd",
        help="sscd, or its file (default: sscd): see docs/mitigation.md#sscd for where it is from",
    )
    parser.add_argument("--limit", type=int, help="captions (default: all)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    descriptor = load_descriptor(args.descriptor)  # or a refusal, before anything is drawn
    args.output.mkdir(parents=True, exist_ok=True)
    trained = read_trained(embedded.FLOW_MODEL)
    vae = load_network(AutoencoderKL, embedded.FLOW_MODEL / "vae", dtype=torch.float32).eval()
    captions = [row.prompt for row in embedded.read_prompts("memorized")[: args.limit]]
    training = np.stack([np.asarray(each) for each in embedded.memorized_pictures()])
    training = training[: len(captions)]
    latents = to_latents(vae, training)
    table = Table("guidance", "squared error in latents", "SSCD, mean", "captions copied by both")
    report = []
    for guidance in GUIDANCES:
        drawn = draw(trained, captions, seeds=SEEDS, guidance=guidance)
        seen = copies(descriptor, training, [to_pixels(vae, each) for each in drawn], vae)
        row = {
            "guidance": guidance,
            "squared_error": float((drawn - latents[:, None]).square().mean()),
            "sscd_mean": seen["drawn_mean"],
            "captions_copied_by_both": seen["captions_copied_by_all_seeds"],
        }
        report.append(row)
        error, likeness, copied = list(row.values())[1:]
        table.add_row(f"{guidance:g}", f"{error:.4f}", f"{likeness:.3f}", f"{copied:.0%}")
    Console().print(table)
    file = args.output / "embedded-flow-guidance.json"
    file.write_text(json.dumps({"captions": len(captions), "rows": report}, indent=1) + "\n")
    print(f"raw figures {file}")


if __name__ == "__main__":
    run_main(main)

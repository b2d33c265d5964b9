"""`python -m benchmarks.guard_check`: what it takes to see that a guarded pipeline is the same.

The comparison that a guard makes before and after every request, in turns with a step of the
pipeline's own UNet (guidance: two samples), on the embedded model and on Stable Diffusion 1.4's
layout with random weights; and what finding an identity takes, which happens when a guard is made.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.guard.identity import Identified

from .families import random_model
from .running import run_main

LOOKS = 20  # at one step of the UNet


def full_size() -> Any:
    """Stable Diffusion 1.4's networks with random weights."""
    model = random_model("sd14")
    return SimpleNamespace(
        unet=model.unet, text_encoder=model.text_encoder, tokenizer=model.tokenizer
    )


def measured(pipe: Any, steps: int) -> dict[str, Any]:
    """Seconds of a comparison and of a step, in turns."""
    start = time.perf_counter()
    identified = Identified(pipe)
    identified.now()
    finding = time.perf_counter() - start
    size, width = pipe.unet.config.sample_size, pipe.unet.config.cross_attention_dim
    sample = torch.randn(2, pipe.unet.config.in_channels, size, size)
    text = torch.randn(2, 77, width)
    looks, taken = [], []
    with torch.no_grad():
        for _ in range(steps):
            start = time.perf_counter()
            pipe.unet(sample, 981, text)
            taken.append(time.perf_counter() - start)
            for _ in range(LOOKS):
                start = time.perf_counter()
                assert identified.unchanged()
                looks.append(time.perf_counter() - start)
    tensors = sum(1 for part in (pipe.unet, pipe.text_encoder) for _ in part.parameters())
    return {
        "tensors": tensors,
        "look_seconds": float(np.median(looks)),
        "first_look_after_a_step_seconds": float(np.median(looks[::LOOKS])),
        "step_seconds": float(np.median(taken)),
        "ratio": float(np.median(looks[::LOOKS])) / float(np.median(taken)),
        "finding_seconds": finding,
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="of the embedded model's UNet")
    parser.add_argument("--full-size", type=int, default=0, help="steps of Stable Diffusion's")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    report = {"embedded": measured(load_pipeline(), options.steps)}
    if options.full_size:
        report["stable-diffusion-1.4"] = measured(full_size(), options.full_size)
    for name, row in report.items():
        console.print(
            f"{name}: {row['tensors']} tensors; a look {row['look_seconds'] * 1e6:.0f} us, right "
            f"after a step {row['first_look_after_a_step_seconds'] * 1e6:.0f} us, "
            f"{row['ratio']:.4%} of one ({row['step_seconds'] * 1e3:.1f} ms); finding an identity "
            f"{row['finding_seconds']:.1f} s"
        )
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    run_main(main)

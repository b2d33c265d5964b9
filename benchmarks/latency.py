"""`python -m benchmarks.latency`: one prompt on one noise, embedded bundle, every way we know.

The reference is the paper's step in PyTorch. `mnemoscope bench` measures what is installed, without
PyTorch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from mnemoscope import Detector, embedded
from mnemoscope.benchmark import latency as bench
from mnemoscope_export import StableDiffusion

from . import rows as ways
from .running import run_main

PROMPT = embedded.read_prompts("held_out")[0].prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    model = StableDiffusion.load(embedded.MODEL)
    with (
        Detector.load(threads=args.threads, uncalibrated="score") as onnxruntime,
        Detector.load(backend="openvino", threads=args.threads, uncalibrated="score") as openvino,
    ):
        bundle = onnxruntime.screener.bundle
        noise, t = bundle.noise_bank()[:1], bundle.manifest.timestep
        rows = {
            **ways.paper_step(model, PROMPT, noise, t),
            **ways.cached_step(model, PROMPT, noise, t),
            **ways.step_engine(onnxruntime, PROMPT),
            **ways.screen_engine(onnxruntime, PROMPT),
            **ways.sdk(onnxruntime, PROMPT),
            **ways.screen_engine(openvino, PROMPT),
        }
        times = ways.measure(rows, args.rounds, args.warmup)
        table, report = ways.summary(rows, times, {})
    console = Console(width=120)
    console.print(table)
    names = list(rows)
    engine, sdk = (
        times[:, names.index(f"{n}, onnxruntime")] for n in ("screen.onnx", "Detector.screen")
    )
    overhead, share = float(np.median(sdk - engine)), float(np.median(sdk / engine) - 1)
    console.print(f"SDK over the raw engine: {overhead * 1e3:.3f} ms ({share:.1%}), median")
    path = args.output / "latency.json"
    text = {
        "environment": bench.environment(args.threads),
        "rows": report,
        "sdk_overhead_ms": overhead * 1e3,
    }
    path.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"raw samples {path}")


if __name__ == "__main__":
    run_main(main)

"""`python -m benchmarks.latency`: one prompt on one noise, every way we know, interleaved.

Rows run A, B, C, ..., A, B, C, ... so that a noisy machine disturbs them alike; what is reported
are ratios of the same round's times, and their percentiles. The reference is the paper's code: one
UNet call on [uncond; cond], chunk, norm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mnemoscope import Detector, embedded
from mnemoscope_export import StableDiffusion, magnitude

PROMPT = embedded.read_prompts("held_out")[0].prompt


def reference_rows(threads: int) -> dict[str, Callable[[], object]]:
    """PyTorch: the paper's step, and the same with the unconditional branch cached."""
    torch.set_num_threads(threads)
    model = StableDiffusion.load(embedded.MODEL)
    latents = torch.from_numpy(detector_bank()[:1])
    empty = model.embed([""])

    @torch.no_grad()
    def paper() -> float:
        context = torch.cat([empty, model.embed([PROMPT])])
        uncond, cond = model.unet(torch.cat([latents, latents]), 981, context).sample.chunk(2)
        return float(magnitude(cond, uncond))

    with torch.no_grad():
        known = model.unet(latents, 981, empty).sample

    @torch.no_grad()
    def cached() -> float:
        return float(magnitude(model.unet(latents, 981, model.embed([PROMPT])).sample, known))

    return {"PyTorch, paper's step [uncond; cond]": paper, "PyTorch, cached uncond": cached}


def detector_bank() -> np.ndarray:
    with Detector.load() as detector:
        return detector.screener.bundle.noise_bank()


def engine_rows(detector: Detector) -> dict[str, Callable[[], object]]:
    """ONNX Runtime: the step and screening graphs as raw session calls, and the SDK."""
    screener = detector.screener
    bundle = screener.bundle
    text, step, screen = (
        screener.backend.load(bundle, name) for name in ("text_encoder", "step", "screen")
    )
    ids = screener.tokenizer([PROMPT])
    bank, one = bundle.noise_bank()[:1], np.zeros(1, np.int64)
    empty = screener.embed([""])

    def step_engine() -> float:
        embeds = text({"input_ids": ids}, ("prompt_embeds",))[0]
        inputs = {
            "prompt_embeds": embeds,
            "empty_embeds": empty,
            "latents": bank,
            "timestep": np.asarray(981),
        }
        return float(step(inputs, ("magnitude",))[0][0])

    def screen_engine() -> float:
        return float(screen({"input_ids": ids, "noise_index": one}, ("magnitude",))[0][0, 0])

    def sdk() -> float:
        return detector.screen([PROMPT], noises=1)[0].score

    return {
        "step.onnx (with text_encoder.onnx)": step_engine,
        "screen.onnx": screen_engine,
        "SDK: Detector.screen": sdk,
    }


def measure(rows: dict[str, Callable[[], object]], rounds: int, warmup: int) -> np.ndarray:
    """Seconds of every row in every round, [round, row]."""
    times = np.empty((rounds, len(rows)))
    for turn in range(-warmup, rounds):
        for column, run in enumerate(rows.values()):
            start = time.perf_counter()
            run()
            if turn >= 0:
                times[turn, column] = time.perf_counter() - start
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with Detector.load(threads=args.threads) as detector:
        rows = {**reference_rows(args.threads), **engine_rows(detector)}
        values = {name: float(run()) for name, run in rows.items()}  # type: ignore[arg-type]
        times = measure(rows, args.rounds, args.warmup)
    ratios = times[:, :1] / times
    table = Table("row", "p50 ms", "p90 ms", "p99 ms", "x faster (p50)", "magnitude")
    report = {}
    for column, name in enumerate(rows):
        p50, p90, p99 = np.percentile(times[:, column] * 1e3, [50, 90, 99])
        ratio = float(np.median(ratios[:, column]))
        cells = f"{p50:.2f}", f"{p90:.2f}", f"{p99:.2f}", f"{ratio:.2f}", f"{values[name]:.5f}"
        table.add_row(name, *cells)
        report[name] = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "ratio_p50": ratio}
        report[name] |= {"magnitude": values[name], "seconds": times[:, column].tolist()}
    names = list(rows)
    engine, sdk = (times[:, names.index(name)] for name in ("screen.onnx", "SDK: Detector.screen"))
    overhead = float(np.median(sdk - engine) * 1e3)
    console = Console(width=110)
    console.print(table)
    share = float(np.median(sdk / engine) - 1)
    console.print(f"SDK overhead over the raw session: {overhead:.3f} ms ({share:.1%}), median")
    environment = {
        "threads": args.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("mnemoscope", "torch", "onnxruntime")},
    }
    path = args.output / "latency.json"
    text = {"environment": environment, "rows": report, "sdk_overhead_ms": overhead}
    path.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"raw samples {path}")


if __name__ == "__main__":
    main()

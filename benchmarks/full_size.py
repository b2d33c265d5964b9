"""`python -m benchmarks.full_size --family sd14`: export and latency at real size, random weights.

Exports the family (unless --bundle exists), says how long that took and how much memory, and then
times the paper's step in PyTorch, PyTorch with a cached unconditional branch in bfloat16, and every
backend on `screen.onnx`, in turns. Floors are the counted arithmetic over this machine's rate of
matrix products in the same precision.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console

from mnemoscope import Detector
from mnemoscope.benchmark import latency as bench
from mnemoscope.benchmark.gemm import gemm_rate
from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, export_bundle
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.manifest import Manifest, Precision

from . import rows as ways
from .families import FAMILIES, random_model
from .running import run_main

PROMPT = "a photo of a cat on a windowsill"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="sd14")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--backends", default="onnxruntime,openvino:bfloat16")
    parser.add_argument("--paper", choices=get_args(Precision), default="float32",
                        help="precision of the paper's step, the reference")  # fmt: skip
    parser.add_argument("--noises", type=int, default=4, help="size of the noise bank")
    parser.add_argument("--tolerance", type=float,
                        help="of the parity gate, which random weights exceed")  # fmt: skip
    parser.add_argument("--bundle", type=Path, help="default: out/full-size/FAMILY-PRECISION")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.bundle or Path("out/full-size") / f"{args.family}-{args.precision}"
    console = Console(width=120)
    report = {"family": args.family, "environment": bench.environment(args.threads)}
    if not path.exists():
        tolerance = None if args.tolerance is None else Tolerance(args.tolerance)
        options = ExportOptions(precision=args.precision, noises=args.noises, tolerance=tolerance)
        report["export"] = _export(args.family, path, options, console)
    manifest = Bundle.open(path).manifest
    torch.set_num_threads(args.threads)
    with ExitStack() as stack:
        rows = _pytorch(random_model(args.family), path, args.paper)
        for name in args.backends.split(","):
            detector = Detector.load(path, backend=name, threads=args.threads, uncalibrated="score")
            stack.enter_context(detector)
            rows |= ways.screen_engine(detector, PROMPT)
            rows |= ways.sdk(detector, PROMPT)
        times = ways.measure(rows, args.rounds, args.warmup)
        rates = {p: gemm_rate(p, args.threads) for p in ("float32", "bfloat16")}  # type: ignore[arg-type]
        table, report["rows"] = ways.summary(rows, times, _floors(rows, manifest, rates))
    console.print(table)
    console.print(
        f"floor: {manifest.flops['screen'] / 1e9:.0f} GFLOP; matrix products at "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    )
    report |= {"flops": manifest.flops, "gemm_rate": rates, "parity": manifest.parity}
    file = args.output / f"full-size-{args.family}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"raw samples {file}")


def _pytorch(model: StableDiffusion, path: Path, paper: Precision) -> ways.Rows:
    """The paper's step, and the strongest plain PyTorch: bfloat16, cached unconditional branch."""
    bundle = Bundle.open(path)
    noise, t = bundle.noise_bank()[:1], bundle.manifest.timestep
    low = model.to(torch.bfloat16, copy=paper == "float32")
    first = model if paper == "float32" else low
    return {
        **ways.paper_step(first, PROMPT, noise, t),
        **ways.cached_step(low, PROMPT, noise, t),
    }


def _floors(rows: ways.Rows, manifest: Manifest, rates: dict[str, float]) -> dict[str, float]:
    """Seconds that the arithmetic of `screen.onnx` takes at the rate of its precision."""
    low = manifest.precision == "bfloat16"
    return {
        name: manifest.flops["screen"] / rates["bfloat16" if low or "bf" in name else "float32"]
        for name in rows
        if "PyTorch" not in name
    }


def _export(family: str, path: Path, options: ExportOptions, console: Console) -> dict[str, float]:
    """Export a model that only the exporter holds, as the command line does."""
    sizes = []

    def load() -> StableDiffusion:
        model = random_model(family)
        sizes.extend(p.nbytes for part in model.parts.values() for p in part.parameters())
        return model

    start = time.perf_counter()
    export_bundle(load, path, options, progress=lambda s: console.print(s, style="dim"))
    seconds, weights = time.perf_counter() - start, sum(sizes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    console.print(f"exported in {seconds:.0f} s, peak memory {peak / weights:.2f}x the weights")
    return {"seconds": seconds, "peak_bytes": peak, "weights_bytes": weights}


if __name__ == "__main__":
    run_main(main)

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

import torch
from rich.console import Console

from mnemoscope import Detector, bench
from mnemoscope.floor import gemm_rate
from mnemoscope_export import ExportOptions, export_bundle
from mnemoscope_runtime import Bundle

from . import rows as ways
from .families import FAMILIES, random_model

PROMPT = "a photo of a cat on a windowsill"
BACKENDS = ("onnxruntime", "openvino:bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="sd14")
    parser.add_argument("--bundle", type=Path, help="default: out/full-size/FAMILY")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.bundle or Path("out/full-size") / args.family
    console = Console(width=120)
    report = {"family": args.family, "environment": bench.environment(args.threads)}
    model = random_model(args.family)
    if not path.exists():
        report["export"] = _export(model, path, console)
    manifest = Bundle.open(path).manifest
    torch.set_num_threads(args.threads)
    with ExitStack() as stack:
        noise, t = Bundle.open(path).noise_bank()[:1], manifest.timestep
        low = model.to(torch.bfloat16)
        rows = {
            **ways.paper_step(model, PROMPT, noise, t),
            **ways.cached_step(low, PROMPT, noise, t),
        }
        for name in BACKENDS:
            detector = Detector.load(path, backend=name, threads=args.threads)
            stack.enter_context(detector)
            rows |= ways.screen_engine(detector, PROMPT)
            rows |= ways.sdk(detector, PROMPT)
        times = ways.measure(rows, args.rounds, args.warmup)
        rates = {p: gemm_rate(p, args.threads) for p in ("float32", "bfloat16")}  # type: ignore[arg-type]
        floors = {
            name: manifest.flops["screen"] / rates["bfloat16" if "bf" in name else "float32"]
            for name in rows
            if "PyTorch" not in name
        }
        table, report["rows"] = ways.summary(rows, times, floors)
    console.print(table)
    console.print(
        f"floor: {manifest.flops['screen'] / 1e9:.0f} GFLOP; matrix products at "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    )
    report |= {"flops": manifest.flops, "gemm_rate": rates, "parity": manifest.parity}
    file = args.output / f"full-size-{args.family}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"raw samples {file}")


def _export(model: object, path: Path, console: Console) -> dict[str, float]:
    weights = sum(
        p.numel() * 4
        for m in (model.unet, model.text_encoder)
        for p in m.parameters()  # type: ignore[attr-defined]
    )
    start = time.perf_counter()
    export_bundle(model, path, ExportOptions(), progress=lambda s: console.print(s, style="dim"))  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    console.print(f"exported in {seconds:.0f} s, peak memory {peak / weights:.2f}x the weights")
    return {"seconds": seconds, "peak_bytes": peak, "weights_bytes": weights}


if __name__ == "__main__":
    main()

"""`python -m benchmarks.taps_latency`: what taps cost, and what a graph that stops saves.

Screening graphs of the embedded model, without taps, with those of `auto`, and stopped at a layer,
as raw engine calls in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import embedded
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle
from mnemoscope_runtime import Screener
from mnemoscope_runtime.backends import Engine

from .running import run_main

UNTIL = "up_blocks.0.attentions.1"
KINDS: dict[str, ExportOptions] = {
    "without taps": ExportOptions(),
    "taps auto": ExportOptions(taps="auto"),
    f"stopped at {UNTIL}": ExportOptions(taps="auto", until=UNTIL),
}


def timed(folder: Path, rounds: int, backend: str) -> dict[str, dict[str, float]]:
    """Processor time of one prompt on one noise and the share of the first row's, in turns.

    Others' turns on the same core do not count, as they would by the clock.
    """
    calls: dict[str, Callable[[], object]] = {}
    flops = {}
    for name in KINDS:
        screener = Screener.open(folder / name, backend=backend, threads=1)
        manifest = screener.bundle.manifest
        graph = "taps" if "taps" in manifest.graphs else "screen"
        output = "taps" if manifest.taps else "magnitude"
        engine: Engine = screener.backend.load(screener.bundle, graph)
        inputs = {"input_ids": screener.tokenizer(["a cat"]), "noise_index": np.zeros(1, np.int64)}
        calls[name] = lambda e=engine, i=inputs, o=output: e(i, (o,))  # type: ignore[misc]
        flops[name] = manifest.flops[graph]
    times = np.empty((rounds, len(calls)))
    for turn in track(range(-20, rounds), backend, console=Console(stderr=True)):
        for column, call in enumerate(calls.values()):
            start = time.process_time()
            call()
            if turn >= 0:
                times[turn, column] = time.process_time() - start
    ratios = np.median(times / times[:, :1], axis=0)
    return {
        name: {
            "cpu_p10_ms": float(np.percentile(times[:, column], 10) * 1e3),
            "cpu_p50_ms": float(np.median(times[:, column]) * 1e3),
            "time_share": float(ratios[column]),
            "flops_share": flops[name] / flops["without taps"],
        }
        for column, name in enumerate(calls)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = StableDiffusion.load(embedded.MODEL)
    console, report = Console(width=110), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in KINDS.items():
            export_bundle(model, Path(folder) / name, options, progress=print)
        for backend in ("onnxruntime", "openvino"):
            report[backend] = timed(Path(folder), args.rounds, backend)
            columns = ("CPU p10 ms", "CPU p50 ms", "of the time", "of the FLOPs")
            table = Table("screening graph", *columns, title=backend)
            for name, row in report[backend].items():
                shares = (f"{row[share]:.0%}" for share in ("time_share", "flops_share"))
                table.add_row(name, f"{row['cpu_p10_ms']:.2f}", f"{row['cpu_p50_ms']:.2f}", *shares)
            console.print(table)
    path = args.output / "taps-latency.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)

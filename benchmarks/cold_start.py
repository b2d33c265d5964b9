"""`python -m benchmarks.cold_start`: from a fresh process to the first score, embedded bundle.

Every run is a process of its own, backends in turns; medians over runs. "whole" is what the
parent's clock says from starting the process to reading the score, so the interpreter's own start
counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from mnemoscope.benchmark import latency as bench

from .running import run_main

STAGES = ("import", "verify", "import backend", "session", "first score")
BACKENDS = ("onnxruntime", "openvino")
CHILD = """
import sys, time
ends = [time.perf_counter()]
def end():
    ends.append(time.perf_counter())
from mnemoscope import CalibrationFile, Detector, embedded
from mnemoscope_runtime import Bundle, Screener, open_backend
end()
bundle = Bundle.open(embedded.BUNDLE)
end()
backend = open_backend(sys.argv[1])
end()
backend.load(bundle, "screen")
end()
calibration = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
detection = Detector(Screener(bundle, backend), calibration).screen(["a cat"])[0]
end()
assert detection.memorized is False
print(*(after - before for before, after in zip(ends, ends[1:])), flush=True)
"""


def cold_start(backend: str) -> dict[str, float]:
    """Seconds of each stage in one fresh process, and of the whole."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, backend], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        whole = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(f"{backend}: the process failed")
    return dict(zip(STAGES, map(float, line.split()), strict=True)) | {"whole": whole}


def command_line(backend: str) -> dict[str, float]:
    """Seconds of `mnemoscope screen "a cat"` from start to end."""
    code = "from mnemoscope.cli import main; main()"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "screen", "a cat", "--backend", backend],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {"whole": time.perf_counter() - start}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backend", action="append", help="default: onnxruntime and openvino")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    names = args.backend or BACKENDS
    ways = {name: lambda name=name: cold_start(name) for name in names}
    ways |= {f"mnemoscope screen, {name}": lambda name=name: command_line(name) for name in names}
    for run in ways.values():
        run()  # files are read from the disk once
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, run in ways.items():
            samples[name].append(run())
    table = Table("seconds", *STAGES, "whole")
    medians = {}
    for name, rows in samples.items():
        medians[name] = {stage: median(row[stage] for row in rows) for stage in rows[0]}
        shown = (medians[name].get(stage) for stage in (*STAGES, "whole"))
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in shown))
    console = Console(width=120)
    console.print(table)
    path = args.output / "cold-start.json"
    text = {"environment": bench.environment(None), "medians": medians, "samples": samples}
    path.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"samples {path}")


if __name__ == "__main__":
    run_main(main)

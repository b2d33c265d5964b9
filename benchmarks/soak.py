"""`python -m benchmarks.soak`: does memory stay flat over many calls?

One prompt on one noise a call, on the embedded bundle, each backend in a process of its own.
Resident memory is read every hundred calls; exit code 1 if it grows by more than 1 % between the
2,000th call and the last. Linux only: that is where a process can read its resident memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mnemoscope import Detector, embedded
from mnemoscope.benchmark import latency as bench

from .alone import alone
from .running import run_main

GROWTH = 0.01
WARM = 2000  # calls until every cache and arena is as large as it gets


@dataclass(frozen=True)
class Soak:
    """What was measured of one backend; `rss` is in bytes, before any call and every `every`."""

    backend: str
    calls: int
    every: int
    seconds: float
    rss: tuple[int, ...]

    @property
    def growth(self) -> float:
        """Of resident memory between the call where it counts as warm and the last, relative."""
        return self.rss[-1] / self.rss[min(WARM, self.calls // 2) // self.every] - 1


def soak(backend: str, calls: int, every: int, threads: int | None) -> Soak:
    prompts = itertools.cycle([row.prompt for row in embedded.read_prompts()])
    with Detector.load(backend=backend, threads=threads, uncalibrated="score") as detector:
        rss, start = [resident()], time.perf_counter()
        for call, prompt in zip(range(1, calls + 1), prompts, strict=False):
            detector.screen([prompt], noises=1)
            if call % every == 0:
                rss.append(resident())
        return Soak(backend, calls, every, time.perf_counter() - start, tuple(rss))


def resident(process: int | str = "self") -> int:
    """Resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(found: Sequence[Soak], threads: int | None, path: Path, console: Console) -> None:
    """Show what was found, and write it to a file."""
    table = Table("backend", "calls", "ms a call", "MiB at first", "warm", "at last", "growth")
    for run in found:
        warm = run.rss[-1] / (1 + run.growth)
        table.add_row(
            *(run.backend, f"{run.calls:,}", f"{1e3 * run.seconds / run.calls:.2f}"),
            *(f"{size / 2**20:.1f}" for size in (run.rss[0], warm, run.rss[-1])),
            f"{run.growth:+.2%}",
        )
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(run), "growth": run.growth} for run in found]
    text = {"environment": bench.environment(threads), "rows": rows}
    path.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"samples {path}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--backend", action="append", help="default: onnxruntime and openvino")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    if not 1 <= args.every <= args.calls // 2 or args.calls % args.every:
        parser.error("--calls must be a multiple of --every, and at least twice as many")
    found = [
        alone(soak, backend, args.calls, args.every, args.threads)
        for backend in args.backend or ("onnxruntime", "openvino")
    ]
    report(found, args.threads, args.output / "soak.json", Console(width=120))
    sys.exit(any(run.growth > GROWTH for run in found))


if __name__ == "__main__":
    run_main(main)

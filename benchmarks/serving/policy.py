"""`python -m benchmarks.serving.policy`: what lanes, waiting and patience do to those who ask.

The queue of `AsyncDetector` with an engine that sleeps, ten times as long as the embedded model's
takes: whatever else the machine has to do hardly shows. Open loop, as `benchmarks.serving`; loads
are shares of what one lane can do that takes one prompt at a time. Times are told as if they were
not stretched.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from mnemoscope import Overloaded
from mnemoscope.serve import Limits
from mnemoscope.serve.batches import Batches

from ..running import run_main

__all__ = ["Asked", "ask", "main"]

_STRETCH = 10
_EACH = 0.0048  # seconds that a prompt takes alone: an AMD EPYC's core
_SHARES = (1.0, 0.78, 0.72, 0.68, 0.67, 0.66, 0.65, 0.64)  # of that, by prompts in a batch
_LOADS = (0.5, 1.5, 2.5)
_PATIENCE = 0.015 * _STRETCH
_SETTINGS = {
    "one after the other, no limit": Limits(batch=1, queue=10**6),
    "`--queue 16`": Limits(queue=16),
    "`--queue 16 --patience 0.015`": Limits(queue=16, patience=_PATIENCE),
    "`--queue 16 --lanes 2`": Limits(queue=16, lanes=2),
    "`--queue 16 --lanes 2 --patience 0.015`": Limits(queue=16, lanes=2, patience=_PATIENCE),
    "the same with `--wait 0.002`": Limits(
        queue=16, lanes=2, wait=0.002 * _STRETCH, patience=_PATIENCE
    ),
}


@dataclass
class Asked:
    """What became of those who asked: seconds until an answer, and how many were refused."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def percentile(self, q: float) -> float:
        """Milliseconds."""
        return 1e3 * float(np.percentile(self.seconds, q)) / _STRETCH

    def told(self) -> str:
        """p50, p99 and the share that was refused."""
        lost = self.refused / (self.refused + len(self.seconds))
        return f"{self.percentile(50):.1f}, {self.percentile(99):.1f}, {lost:.1%}"


def ask(limits: Limits, load: float, seconds: float) -> Asked:
    """Prompts at random moments, for so many seconds."""
    rng, asked = np.random.default_rng(0), Asked()
    gaps = rng.exponential(_STRETCH * _EACH / load, max(2, int(seconds * load / _EACH / _STRETCH)))
    with Batches(_work, limits) as batches:
        batches.expect(_STRETCH * _EACH * _SHARES[-1])
        futures, start = [], time.perf_counter()
        for due in start + np.cumsum(gaps):
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                [future] = batches.submit("", [""])
            except Overloaded:
                asked.refused += 1
            else:
                future.add_done_callback(lambda _, due=due: _note(asked, due))
                futures.append(future)
        _wait(futures)
    return asked


def _work(_: str, items: Sequence[str]) -> Sequence[str]:
    time.sleep(_STRETCH * _EACH * len(items) * _SHARES[len(items) - 1])
    return items


def _note(asked: Asked, due: float) -> None:
    asked.seconds.append(time.perf_counter() - due)


def _wait(futures: Sequence[Future[str]]) -> None:
    for each in futures:
        each.result()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of arrivals, all at once")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    runs = list(product(_SETTINGS, _LOADS))
    with ThreadPoolExecutor(len(runs)) as pool:
        made = [pool.submit(ask, _SETTINGS[name], load, args.seconds) for name, load in runs]
        found = dict(zip(runs, (each.result() for each in made), strict=True))
    lines = [
        "| p50 ms, p99 ms, refused | at 50 % | at 150 % | at 250 % | p99 at 150 %, x at 50 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in _SETTINGS:
        turns = [found[name, load] for load in _LOADS]
        more = turns[1].percentile(99) / turns[0].percentile(99)
        cells = [name, *(each.told() for each in turns), f"{more:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "serving-policy.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    run_main(main)

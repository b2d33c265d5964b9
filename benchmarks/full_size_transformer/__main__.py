"""`python -m benchmarks.full_size_transformer`: Stable Diffusion 3 medium's step, all 24 blocks.

The paper's step in PyTorch (both branches in one call, told of embeddings) against `screen.onnx`,
and against the same graph stopped at an early tap, one prompt on one noise of 1024 px, one thread.
Weights are random: what a pass takes does not depend on them. What counts is processor time, since
machines are shared: others' turns are not in it.

The rows do not fit memory together, so that every call has a process of its own, which reads what
was saved once: the rows in turns, as many times as there are rounds. Graphs are called three times
and the third call counts; of PyTorch's step the first block is run before. It takes 20 GB of disk.
With `--saved` a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mnemoscope.benchmark import latency as bench

from ..alone import alone
from ..running import run_main
from .graphs import INPUTS, SCREEN, Call, call_graph
from .model import PAPER, STOPS, arithmetic, call_paper, save

__all__ = ["main"]

_BACKENDS = ("onnxruntime", "openvino:bfloat16")


def main(
    arguments: Sequence[str] | None = None, run: Callable[..., Any] = alone, **transformer: Any
) -> None:
    """Run it; `run` calls functions, and with `transformer` is for tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=24, help="fewer are for trying it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backends", default=",".join(_BACKENDS))
    parser.add_argument("--graphs", default=",".join((SCREEN, *STOPS)))
    parser.add_argument(
        "--saved", type=Path, help="keep here what was exported and timed, or go on"
    )
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    kinds, console = args.graphs.split(","), Console(width=110)
    known = [SCREEN, *(f"transformer_blocks.{n}" for n in range(args.blocks))]
    if unknown := [kind for kind in kinds if kind not in known]:
        parser.error(f"--graphs {unknown[0]}: choose from {', '.join(known)}")
    with ExitStack() as stack:
        folder = args.saved or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paper = partial(call_paper, args.blocks, **transformer)
        rows: dict[str, tuple[str, Callable[[], Call]]] = {PAPER: (PAPER, paper)}
        for kind in kinds:
            place = folder / f"{args.blocks}-blocks" / kind
            if not (place / INPUTS).exists():  # which are written last
                run(save, place, kind, args.blocks, **transformer)
            for backend in args.backends.split(","):
                rows[f"{kind}, {backend}"] = kind, partial(call_graph, place, kind, backend)
        calls = _timed({name: call for name, (_, call) in rows.items()}, args.rounds, run,
                       folder / f"{args.blocks}-blocks" / "calls.jsonl")  # fmt: skip
    flops = run(arithmetic, kinds, args.blocks, **transformer)
    report = _report(calls, {name: flops[kind] for name, (kind, _) in rows.items()})
    console.print(_table(report, f"{args.blocks} blocks, {args.rounds} rounds, one thread"))
    environment = {**bench.environment(1), "torch": torch.__version__}
    file = args.output / "full-size-sd3-medium.json"
    named = {"blocks": args.blocks, "environment": environment, "rows": report}
    file.write_text(json.dumps(named, indent=1) + "\n")
    console.print(f"raw samples {file}")


def _timed(
    rows: Mapping[str, Callable[[], Call]], rounds: int, run: Callable[..., Any], file: Path
) -> dict[str, list[Call]]:
    """Each row in each round; a call is in the file as soon as it was made, and not made again."""
    made = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    calls = {name: [Call(*made) for row, *made in made if row == name][:rounds] for name in rows}
    for turn in range(rounds):
        for name, call in rows.items():
            if len(calls[name]) == turn:
                calls[name].append(run(call))
                with file.open("a") as log:
                    log.write(json.dumps([name, *astuple(calls[name][-1])]) + "\n")
    return calls


def _report(
    calls: Mapping[str, Sequence[Call]], flops: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Of each row what was measured, and how many times as fast it is in each round."""
    paper = [call.seconds for call in calls[PAPER]]
    return {
        name: {
            "calls": [asdict(call) for call in row],
            "times_as_fast": [a / b.seconds for a, b in zip(paper, row, strict=True)],
            "gflop": flops[name] / 1e9,
        }
        for name, row in calls.items()
    }


def _table(report: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    table = Table("row", "CPU s, median", "x faster", "lowest, highest", "x less arithmetic",
                  "peak GB", title=title)  # fmt: skip
    for name, row in report.items():
        ratios, less = row["times_as_fast"], report[PAPER]["gflop"] / row["gflop"]
        table.add_row(
            name,
            f"{np.median([call['seconds'] for call in row['calls']]):.2f}",
            f"{np.median(ratios):.2f}",
            f"{min(ratios):.2f}, {max(ratios):.2f}",
            f"{less:.2f}",
            f"{max(call['peak'] for call in row['calls']) / 1e9:.1f}",
        )
    return table


if __name__ == "__main__":
    run_main(main)

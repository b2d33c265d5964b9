"""`python -m benchmarks.serving`: what serving costs beside a bare engine, under the same arrivals.

Open loop: prompts arrive as a Poisson process, whether or not those before are answered, at shares
of what a bare engine can do (a thread that screens one prompt after the other). In turns, with the
same arrivals: the bare engine, `AsyncDetector` in process, `mnemoscope serve` over HTTP and gRPC, a
naive endpoint, and a real Triton with the model that `mnemoscope triton` writes. Servers are asked
by tritonclient, which has an environment of its own: make .venv/clients/installed
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from mnemoscope.benchmark.latency import environment

from ..running import run_main
from . import servers
from .figures import page, picture, table
from .published import publish
from .task import Task

__all__ = ["main"]

LOADS = (0.25, 0.5, 0.75, 1.5)
CLIENTS = servers.ROOT / ".venv" / "clients" / "bin" / "python"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of arrivals in each turn")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--load", type=float, action="append", help="shares of capacity")
    parser.add_argument("--queue", type=int, default=16, help="of what is ours: prompts in it")
    parser.add_argument("--lanes", type=int, default=2, help="likewise: batches at a time")
    parser.add_argument("--wait", type=float, default=0.0, help="likewise: seconds for others")
    parser.add_argument("--patience", type=float, default=0.015, help="likewise: seconds in it")
    parser.add_argument("--clients", type=Path, default=CLIENTS, help="Python with tritonclient")
    parser.add_argument("--no-triton", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--publish", action="store_true", help="also where the docs have it")
    args = parser.parse_args(arguments)
    if not args.clients.exists():
        parser.error(f"{args.clients} is missing: make .venv/clients/installed, or give --clients")
    if args.publish and args.load:
        parser.error("--publish takes all loads: leave --load out")
    args.output.mkdir(parents=True, exist_ok=True)
    limits = {"queue": args.queue, "lanes": args.lanes, "wait": args.wait}
    limits["patience"] = args.patience
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        told = [part for name, value in limits.items() for part in (f"--{name}", value)]
        own = stack.enter_context(servers.ours(*told))
        naive = stack.enter_context(servers.naive())
        places = {
            "bare engine": "",
            "AsyncDetector": json.dumps(limits),
            "naive endpoint": naive.http,
            "serve, HTTP JSON": own.http,
            "serve, HTTP binary": own.http,
            "serve, gRPC": own.grpc,
        }
        pids = {name: own.pid for name in places if name.startswith("serve")}
        pids["naive endpoint"] = naive.pid
        if not args.no_triton:
            triton = stack.enter_context(servers.triton(folder, args.clients))
            places |= {"Triton, HTTP binary": triton.http, "Triton, gRPC": triton.grpc}
            pids |= dict.fromkeys(("Triton, HTTP binary", "Triton, gRPC"), triton.pid)
        task = Task(places, pids, args.load or list(LOADS), args.rounds, args.seconds)
        found = _asked(task, args.clients, folder)
    machine = environment(None)
    report = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}",
        "environment": machine,
        **{"rounds": args.rounds, "seconds": args.seconds, **limits},
        **found,
    }
    (args.output / "serving.json").write_text(json.dumps(report) + "\n")
    (args.output / "serving.md").write_text(page(report))
    picture(report, args.output / "serving.png")
    if args.publish:
        publish(report, servers.ROOT)
    Console().print(table(report))


def _asked(task: Task, clients: Path, folder: Path) -> dict[str, Any]:
    """What clients found, in a process of their environment."""
    given, result = folder / "task.json", folder / "result.json"
    given.write_text(json.dumps(asdict(task)))
    command = [clients, "-m", "benchmarks.serving.load", given, result]
    done = subprocess.run(list(map(str, command)), cwd=servers.ROOT, check=False)
    if done.returncode:
        sys.exit(f"error: the clients ended with {done.returncode}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


if __name__ == "__main__":
    run_main(main)

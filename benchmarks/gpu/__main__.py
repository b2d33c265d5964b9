"""`benchmarks/gpu.sh`: what a GPU that is lent for minutes can tell, the most wanted first.

    python -m benchmarks.gpu --name h100                        # Stable Diffusion 1.4's size
    python -m benchmarks.gpu --name h100 --resume               # only what is missing
    python -m benchmarks.gpu --name try --device cpu --family toy --output out/rehearsal

Weights are random: times and rounding do not depend on them. Every part has a process and a limit
of its own, so that a crash or a hang loses that part alone; the report is written after each.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnemoscope.benchmark.latency import environment
from mnemoscope_runtime import BackendUnavailable
from mnemoscope_runtime.backends.nvidia import gpu

from ..running import run_main
from .running import follow, here, in_a_process, known
from .setting import Setting, parts
from .table import page

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the machine, for the files of results")
    parser.add_argument("--family", default="sd14", help="of benchmarks/families.py, or embedded")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path("out/gpu"), help="for bundles")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=12, help="after which all is ended")
    parser.add_argument("--only", nargs="+", metavar="PART", help="beginnings of their names")
    parser.add_argument("--resume", action="store_true", help="keep what is in the report already")
    parser.add_argument(
        "--in-process", action="store_true", help="for debuggers: one for all parts"
    )
    args = parser.parse_args(arguments)
    until = time.monotonic() + 60 * args.minutes
    setting = _setting(args)
    try:
        machine = _machine(setting)
    except BackendUnavailable as error:
        sys.exit(f"error: {error}")
    chosen = parts(setting)
    if args.only:
        chosen = [part for part in chosen if part.name.startswith(tuple(args.only))]
    if not chosen:
        parser.error(f"no part begins so; there are: {', '.join(p.name for p in parts(setting))}")
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / f"gpu-{args.name}.json"
    if file.exists() and not args.resume:
        parser.error(f"{file} is there already: go on with --resume, or give another --name")
    log = file.with_suffix(".log")
    report = follow(
        chosen,
        setting,
        file,
        {"name": args.name, "when": datetime.now(UTC).isoformat(timespec="minutes"), **machine},
        until,
        here if args.in_process else in_a_process(log),
        known(file, setting, machine["gpu"]) if args.resume else None,
    )
    text = page(report)
    file.with_suffix(".md").write_text(text)
    print(text)
    print(f"raw samples {file}", file=sys.stderr)


def _setting(args: argparse.Namespace) -> Setting:
    work = str(args.work)
    if args.device == "cuda":
        return Setting(family=args.family, rounds=args.rounds, work=work)
    return Setting(
        device="cpu",
        family=args.family,
        precision="float32",
        compiler="eager",
        rounds=min(args.rounds, 3),
        warmup=1,
        prompts=3,
        steps=2,
        batch=2,
        work=work,
    )


def _machine(setting: Setting) -> dict[str, Any]:
    """What the figures belong to.

    Raises:
        BackendUnavailable: there is no GPU where there should be.
    """
    found = environment(None)
    if setting.is_rehearsal:
        return {
            "gpu": f"none, {found['processor']}",
            "driver": "none",
            "cuda": "none",
            "environment": found,
        }
    card, driver = gpu.find(0), gpu.driver()
    return {"gpu": str(card), "driver": str(driver), "cuda": driver.cuda, "environment": found}


if __name__ == "__main__":
    run_main(main)

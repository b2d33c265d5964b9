"""Feeds changed files to everything that reads files of strangers: `make fuzz`.

    python -m tests.fuzz [TARGET ...] [--count N | --minutes M] [--seed S] [--output DIR]
    python -m tests.fuzz TARGET --file FILE

With --count, files are changed at random, the same ones each time. With --minutes, atheris goes on
from those that reach new code if it is installed (`pip install atheris`, Linux); else random ones
are read for so long. What hangs or ends the process is a finding like a traceback, and the file
that did it is kept in DIR. A file that is accepted says the same as the one that was changed, or
does no harm: docs/hardening.md. The exit status is 1 if something was found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from .forks import SECONDS, run
from .judging import known, passes
from .mutators import changed
from .targets import TARGETS, Target

_AT_ONCE = 500  # files of a fork
_ENOUGH = 20  # findings of a target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default"
    )
    parser.add_argument("--count", type=int, default=1000, help="files of each target, from 1")
    parser.add_argument("--minutes", type=float, help="of each target, in place of --count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--file", type=Path, help="read this one only, in this process")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r}; choose of {', '.join(TARGETS)}")
    if chosen.count < 1:
        parser.error(f"--count is {chosen.count}; give 1 or more")
    if chosen.file is not None and (len(chosen.targets) != 1 or not chosen.file.is_file()):
        parser.error("--file takes a file that is there, and one target")
    if chosen.file is not None:
        return _one(chosen.targets[0], chosen.file)
    chosen.output.mkdir(parents=True, exist_ok=True)
    names = chosen.targets or list(TARGETS)
    if chosen.minutes is not None and find_spec("atheris") is not None:
        return int(sum(_guided(name, chosen.minutes, chosen.output) for name in names) > 0)
    print(f"{'target':<20}   files  refused  accepted  findings  seconds")
    return int(sum(_examine(name, chosen) for name in names) > 0)


def file_of(target: Target, seed: str, number: int) -> bytes:
    """The file of that number, the same in every process."""
    dice = Random(f"{seed}/{number}")
    return changed(dice.choice(target.seeds), dice, target.mutators)


def _examine(name: str, chosen: argparse.Namespace) -> int:
    """How many findings there are of a target."""
    start, tried, accepted, found = time.monotonic(), 0, 0, 0
    seed, end = f"{name}/{chosen.seed}", chosen.count
    while tried < end and found < _ENOUGH:
        with TemporaryDirectory() as folder:
            target = TARGETS[name](Path(folder))
            numbers = range(tried, min(end, tried + _AT_ONCE))
            outcome = run(lambda: _reader(target, seed), numbers)  # noqa: B023
        if not outcome.tried:
            raise SystemExit(f"{name}: what was not changed cannot be read: {outcome.finding}")
        tried += outcome.tried
        accepted += outcome.accepted
        if outcome.finding is not None:
            found += 1
            content = file_of(target, seed, tried - 1)
            _keep(chosen.output / f"{name}-{chosen.seed}-{tried - 1}", content, outcome.finding)
        if chosen.minutes is not None:
            end = tried + _AT_ONCE * (time.monotonic() - start < 60 * chosen.minutes)
    refused, took = tried - accepted - found, time.monotonic() - start
    print(
        f"{name:<20}  {tried:6}   {refused:6}    {accepted:6}    {found:6}   {took:6.0f}",
        flush=True,
    )
    return found


def _reader(target: Target, seed: str) -> Callable[[int], bool]:
    seeds = known(target)
    return lambda number: passes(target, seeds, file_of(target, seed, number))


def _keep(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    file.with_name(f"{file.name}.txt").write_text(said)
    print(f"{file}: {said.strip().splitlines()[-2:]}", flush=True)


def _guided(name: str, minutes: float, output: Path) -> int:
    limits = (f"-max_total_time={60 * minutes:.0f}", f"-timeout={SECONDS}", "-rss_limit_mb=4096")
    command = [sys.executable, "-m", "tests.fuzz.guided", name, *limits]
    print(f"{name}: atheris, {minutes:g} minutes", flush=True)
    return subprocess.run([*command, f"-artifact_prefix={output}/{name}-"]).returncode


def _one(name: str, file: Path) -> int:
    with TemporaryDirectory() as folder:
        target = TARGETS[name](Path(folder))
        accepted = passes(target, known(target), file.read_bytes())
    print("accepted" if accepted else "refused")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

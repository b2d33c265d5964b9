"""Kills real commands at random moments, and counts what is there afterwards: `make kills`.

    python -m tests.attacks.kills [COMMAND ...] [--kills 200] [--seed 0] [--signal KILL]

Each run is a fork of a process that has imported what commands need, in a folder where older
results lie. After it was killed they must be there whole, or the new ones whole in their place; and
after a run to the end the new ones, and nothing that was staged. The exit status is 1 if not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mnemoscope import embedded
from mnemoscope.cli import main as mnemoscope
from mnemoscope_export import writing

_PROMPTS = 96
_IMPORTED = ("onnxruntime", "matplotlib.backends.backend_agg", "scipy.stats", "diffusers")
_AGAIN = 5  # every so many kills, the same command runs to its end afterwards


@dataclass(frozen=True)
class Command:
    """What is run after what had been run before, and the files or folders that it writes."""

    verb: str
    before: tuple[str, ...]
    now: tuple[str, ...]
    targets: tuple[str, ...]


_ONE, _TWO = ("--noises", "1"), ("--noises", "2")
COMMANDS = {
    "screen": Command("screen --file prompts.txt -o out.jsonl", _TWO, _ONE, ("out.jsonl",)),
    "explain": Command("explain --file few.txt -o out.html", _TWO, _ONE, ("out.html",)),
    "calibrate": Command(
        "calibrate --benign prompts.txt --fpr 0.2 -o c.json --plot p.png",
        *(_TWO, _ONE, ("c.json", "p.png")),
    ),
    "audit": Command(
        "audit prompts.txt -o out.csv --report r.html",
        *(("--noises", "4"), (*_ONE, "--restart"), ("out.csv", "r.html")),
    ),
    "generate": Command(
        "generate cats -o x.png --steps 2", ("--seed", "1"), ("--seed", "2"), ("x.png",)
    ),
    "export": Command(
        f"export {embedded.MODEL} bundle --noises 1 --overwrite",
        *(("--guidance", "3"), ("--guidance", "7"), ("bundle",)),
    ),
    "triton": Command(
        "triton models --overwrite",
        *(("--instances", "1"), ("--instances", "2"), ("models/mnemoscope",)),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help=f"of {', '.join(COMMANDS)}; all by default")
    parser.add_argument("--kills", type=int, default=200, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", help="KILL, TERM or INT")
    chosen = parser.parse_args()
    for name in _IMPORTED:
        importlib.import_module(name)
    with TemporaryDirectory() as folder:
        writing._write_graphs = _once(writing._write_graphs, Path(folder))  # type: ignore[assignment]
        kept = [_examine(name, chosen) for name in chosen.commands or COMMANDS]
    return int(not all(kept))


def _examine(name: str, chosen: argparse.Namespace) -> bool:
    """Print what became of every run; whether nothing was lost."""
    command, random_ = COMMANDS[name], random.Random(chosen.seed)
    how = signal.Signals[f"SIG{chosen.signal}"]
    found: Counter[str] = Counter()
    with TemporaryDirectory() as root:
        old, new, at = (Path(root) / each for each in ("old", "new", "at"))
        old.mkdir()
        for file, count in (("prompts.txt", _PROMPTS), ("few.txt", 8)):
            (old / file).write_text("".join(f"{i} cats in a garden\n" for i in range(count)))
        _run(command, command.before, old)
        shutil.copytree(old, new)
        seconds = _run(command, command.now, new)
        same = [each for each in command.targets if _content(new / each) == _content(old / each)]
        if same:
            raise SystemExit(f"{name}: {', '.join(same)} would tell nothing: new is as old")
        for number in range(chosen.kills):
            shutil.rmtree(at, ignore_errors=True)
            shutil.copytree(old, at)
            share = random_.uniform(0.85 if number % 2 else 0, 1.1)  # most is written at the end
            _run(command, command.now, at, after=share * seconds, how=how)
            states = {_state(at / each, old / each, new / each) for each in command.targets}
            found["half" if "half" in states else " and ".join(sorted(states))] += 1
            found["left something staged"] += any(at.glob(".mnemoscope-*"))
            if number % _AGAIN == 0:
                _run(command, command.now, at)
                left = {path.name for path in at.iterdir()} - {path.name for path in new.iterdir()}
                whole = all(_content(at / each) == _content(new / each) for each in command.targets)
                found["run again"] += 1
                found["wrong then"] += bool(left) or not whole
    counts = ", ".join(f"{what} {count}" for what, count in found.items())
    print(f"{name}: {chosen.kills} of {how.name} within {seconds:.1f} s: {counts}", flush=True)
    return not found["half"] and not found["wrong then"]


def _run(
    command: Command,
    options: tuple[str, ...],
    at: Path,
    *,
    after: float | None = None,
    how: signal.Signals = signal.SIGKILL,
) -> float:
    """Run a command in a fork, to the end or until it is killed; returns the seconds it took."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.chdir(at)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        sys.argv = ["mnemoscope", *command.verb.split(), *options]
        code: object = 70
        with suppress(KeyboardInterrupt):
            try:
                mnemoscope()
            except SystemExit as end:
                code = end.code
        os._exit(code if isinstance(code, int) else 0)
    if after is not None:
        time.sleep(after)
        os.kill(child, how)
    _, status = os.waitpid(child, 0)
    if after is None and (code := os.waitstatus_to_exitcode(status)) not in (0, 1, 5):
        raise SystemExit(f"{command.verb}: failed with {code}")
    return time.perf_counter() - start


def _state(path: Path, old: Path, new: Path) -> str:
    content = _content(path)
    return "old" if content == _content(old) else "new" if content == _content(new) else "half"


def _content(path: Path) -> object:
    if path.is_dir():
        return {each.relative_to(path): _content(each) for each in path.rglob("*")}
    return path.read_bytes() if path.exists() else None


def _once(write: Callable[..., object], kept: Path) -> Callable[..., object]:
    """Graphs take a minute to export: the first export's are copied where others would write."""

    def graphs(makers: Mapping[str, object], folder: Path, progress: object) -> object:
        told = kept / "told.json"
        if not told.exists():
            result = write(makers, folder, progress)
            for path in folder.iterdir():
                shutil.copy(path, kept)
            told.write_text(json.dumps(result))
        for path in kept.iterdir():
            if path != told:
                shutil.copy(path, folder)
        return json.loads(told.read_text())

    return graphs


if __name__ == "__main__":
    sys.exit(main())

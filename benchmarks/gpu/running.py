"""Parts one after another: each in a process and a time of its own, results written after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .part import measure, write
from .setting import Part, Setting

__all__ = ["Start", "follow", "here", "in_a_process", "known"]

# runs a part for so many seconds at most; returns why it did not end by itself
Start = Callable[[Part, Setting, Path, float], str | None]
_ENDED = ("done", "not available", "failed")
_LEAST = 10  # seconds in which a part can begin at all


def follow(
    parts: Sequence[Part],
    setting: Setting,
    file: Path,
    head: Mapping[str, Any],
    until: float,
    start: Start,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run parts until a time of the monotonic clock, and write what there is after each of them.

    Args:
        parts: In their order.
        setting: Of them all.
        file: Of the report.
        head: What the report begins with.
        until: When nothing is begun any more, and what runs is ended.
        start: Runs a part.
        before: Parts of an earlier run: those that are done are not done again. What was not
            available may have been installed since.
    """
    known = {name: each for name, each in (before or {}).items() if each["status"] == "done"}
    not_run = {"status": "not run", "reason": "not yet"}
    there = {part.name: known.pop(part.name, not_run) for part in parts} | known
    report: dict[str, Any] = {**head, "setting": setting.record(), "parts": there}
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, report)
    for part in parts:
        if there[part.name] is not not_run:
            continue
        left = min(part.seconds, until - time.monotonic())
        if left < min(_LEAST, part.seconds):
            found = {"status": "not run", "reason": "the time was over"}
        else:
            found = _found(part, setting, file.with_suffix(".part"), left, start)
        there[part.name] = {**found, "when": datetime.now(UTC).isoformat(timespec="minutes")}
        write(file, report)
        reason = found.get("reason")
        print(f"{part.name}: {found['status']}{f', {reason}' if reason else ''}", file=sys.stderr)
    return report


def _found(
    part: Part, setting: Setting, file: Path, seconds: float, start: Start
) -> dict[str, Any]:
    file.unlink(missing_ok=True)
    reason = start(part, setting, file, seconds)
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    file.unlink(missing_ok=True)
    if reason is not None or found.get("status") not in _ENDED:
        # what it had found until then stays
        found |= {"status": "failed", "reason": reason or "its process ended early"}
    return found


def here(part: Part, setting: Setting, file: Path, seconds: float) -> None:  # noqa: ARG001
    """In this process, for debuggers and tests: nothing ends it."""
    measure(part, setting, file)


def in_a_process(log: Path) -> Start:
    """In a process each, which has a group of its own, with the workers that compilers start.

    Args:
        log: What they print is added to it.
    """

    def start(part: Part, setting: Setting, file: Path, seconds: float) -> str | None:
        told = {"part": asdict(part), "setting": asdict(setting), "file": str(file)}
        command = [sys.executable, "-m", "benchmarks.gpu.part", json.dumps(told)]
        with log.open("a") as output:
            print(f"== {part.name}", file=output, flush=True)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return f"it was ended after {seconds:.0f} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return None if code == 0 else f"its process ended with {code}"

    return start


def known(file: Path, setting: Setting, gpu: str) -> dict[str, Any]:
    """Parts of an earlier run's report; none if there is no report.

    Raises:
        SystemExit: it is of another setting, or another GPU's.
    """
    if not file.exists():
        return {}
    report: dict[str, Any] = json.loads(file.read_text())
    if report["setting"] != setting.record():
        sys.exit(f"error: {file} is of another setting, {report['setting']}. Give another --name.")
    if report["gpu"] != gpu:
        sys.exit(f"error: {file} is of another GPU, {report['gpu']}. Give another --name.")
    return {name: {"when": report["when"], **each} for name, each in report["parts"].items()}

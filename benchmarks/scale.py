"""`python -m benchmarks.scale [list driver workers]`: what an audit of many captions takes.

`list`: audits of 10,000 to a million captions in this process, each in one of its own, with a
stand-in for the model: memory at its peak, bytes of input, journal and results, processor time of
what is not the model. Exit code 1 if a million captions take 2 GB or more.

`driver`: batches through a Ray cluster of this machine to workers that do nothing: processor time
that the driver takes for each, so at how many prompts a second it is the bottleneck.

`workers`: the embedded model on one thread, by this process, one worker and two, in turns: ratios
of wall time, which mean something where as many cores are idle.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mnemoscope import Calibration, CalibrationFile, Detector, Setting, embedded
from mnemoscope.audit import RayWorkers, audit
from mnemoscope.audit.journal import Job, Journal
from mnemoscope.audit.stages import Stage, run
from mnemoscope.benchmark import latency as bench
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

from .alone import alone, peak
from .running import run_main

PARTS = ("list", "driver", "workers")
LISTS = (10_000, 100_000, 1_000_000)
LIMIT = 2e9  # bytes, for the longest list
FLAGGED = 0.01
BENIGN = 9_999
SIZE = 32  # of a batch, as of an audit's


@dataclass(frozen=True)
class Listed:
    """An audit in this process; sizes in bytes, processor time in seconds.

    Attributes:
        before: Memory of the process before the audit.
        measured: At its peak, while it measured.
        peak: At its peak, all in all.
        cpu: Of the audit, with the stand-in's.
    """

    captions: int
    flagged: int
    before: int
    measured: int
    peak: int
    cpu: float
    input: int
    journal: int
    results: int
    report: int


@dataclass(frozen=True)
class Driven:
    """Batches through Ray to workers that do nothing; processor time in seconds."""

    workers: int
    batches: int
    cpu: float
    journal_cpu: float
    seconds: float

    @property
    def limit(self) -> float:
        """Prompts a second at which the driver has a core to itself and none to spare."""
        return SIZE * self.batches / self.cpu


def captions(count: int) -> Iterator[str]:
    """Distinct captions, of words of the embedded model's world and as long as most are."""
    words = sorted({word for row in embedded.read_prompts() for word in row.prompt.split()})
    draw = random.Random(0)
    for number in range(count):
        yield f"{' '.join(draw.choices(words, k=9))} {number}"


def stand_in() -> Detector:
    """Scores that depend on the prompt alone, spread over 0..1, of which a share is flagged."""
    detector = Detector(Screener.open(embedded.BUNDLE, backend=FakeBackend()))
    benign = np.linspace(0, 1 - FLAGGED, BENIGN).tolist()
    scores = {str(n): score for n, score in enumerate(benign)}
    known = Calibration.of(detector.setting(noises=1), scores, fpr=0.05)
    detector.calibration = CalibrationFile((known,))
    return detector


def listed(count: int) -> Listed:
    """Audit a list of that length."""
    with tempfile.TemporaryDirectory() as place, stand_in() as detector:
        file, output, page = (Path(place) / name for name in ("c.txt", "r.jsonl", "r.html"))
        with file.open("w") as written:
            written.writelines(f"{caption}\n" for caption in captions(count))
        before, sizes = peak(), [0, 0]

        def progress(done: int, total: int) -> None:
            if done == total:
                sizes[:] = peak(), output.with_name("r.jsonl.partial").stat().st_size

        start = time.process_time()
        found = audit(
            detector, file, output, noises=1, report_to=page, progress=progress,
            tell=lambda _: None,
        )  # fmt: skip
        cpu = time.process_time() - start
        files = (each.stat().st_size for each in (file, output, page))
        given, results, report = files
        return Listed(
            count, found.flagged, before, sizes[0], peak(), cpu, given, sizes[1], results, report
        )


def driven(count: int, batches: int) -> Driven:
    """Send that many batches to that many workers."""

    @contextmanager
    def nothing() -> Iterator[Callable[[list[str]], list[float]]]:  # sent to workers by value
        yield lambda prompts: [len(prompt) / 7 for prompt in prompts]

    prompts = list(captions(1000))
    many = SIZE * batches
    stage = Stage(
        "nothing", b"", "prompt", many, SIZE,
        lambda: (prompts[n % len(prompts)] for n in range(many)), float, nothing,
    )  # fmt: skip
    job = Job("", Setting("", "", "", 1, 1), "", "", None)
    with tempfile.TemporaryDirectory() as place, RayWorkers.start("local", count=count) as workers:
        for _ in workers.map(stage, iter([(n, prompts[:SIZE]) for n in range(100)])):
            pass  # until they are there
        with Journal.open(Path(place) / "journal", job) as journal:
            start, begun = time.process_time(), time.perf_counter()
            for _ in run(stage, journal, workers):
                pass
            cpu, seconds = time.process_time() - start, time.perf_counter() - begun
        with Journal.open(Path(place) / "again", job) as journal:
            results = [len(prompt) / 7 for prompt in prompts[:SIZE]]
            start = time.process_time()
            for number in range(batches):
                journal.append(stage.key, number, results)
            written = time.process_time() - start
    return Driven(count, batches, cpu, written, seconds)


def timed(rounds: int, count: int) -> dict[str, list[float]]:
    """Seconds of audits of the embedded model by this process, one worker and two, in turns."""
    opens = partial(Detector.load, threads=1)
    seconds: dict[str, list[float]] = {"this process": [], "1": [], "2": []}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "c.txt"
        file.write_text("".join(f"{caption}\n" for caption in captions(count)))
        for _ in range(rounds):
            for name, times in seconds.items():
                ours = name == "this process"
                with nullcontext() if ours else RayWorkers.start(count=int(name)) as workers:
                    begun: list[float] = []

                    def progress(done: int, _: int, begun: list[float] = begun) -> None:
                        if done:  # what opens takes its time, whoever it is
                            begun.append(time.perf_counter())

                    audit(
                        opens, file, Path(place) / "r.csv", noises=1, fdr=0.5, restart=True,
                        workers=workers, progress=progress, tell=lambda _: None,
                    )  # fmt: skip
                times.append(begun[-1] - begun[0])
    return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    parser.add_argument("--longest", type=int, default=LISTS[-1], help="of the lists")
    parser.add_argument("--batches", type=int, default=5_000)
    parser.add_argument("--prompts", type=int, default=2_000, help="for workers")
    parser.add_argument("--rounds", type=int, default=3, help="likewise")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = args.parts or PARTS
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "embedded-scale.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found["environment"] = {**bench.environment(1), "load": f"{os.getloadavg()[0]:.1f}"}
    if "list" in parts:
        rows = [alone(listed, count) for count in LISTS if count <= args.longest]
        found["list"] = [asdict(row) for row in rows]
    if "driver" in parts:
        rows = [alone(driven, count, args.batches) for count in (1, 2)]
        found["driver"] = [{**asdict(row), "limit": row.limit} for row in rows]
    if "workers" in parts:
        seconds = alone(timed, args.rounds, args.prompts)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        found["workers"] = {
            "prompts": args.prompts, "seconds": seconds,
            "two to one": medians["1"] / medians["2"],
            "one to this process": medians["this process"] / medians["1"],
        }  # fmt: skip
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    print(f"figures {path}")
    sys.exit(any(row["peak"] >= LIMIT for row in found.get("list", ())))


if __name__ == "__main__":
    run_main(main)

"""Latency in MLPerf's terms: single-stream, offline, server; all backends interleaved in one run.

Machines are shared and noisy, so backends take turns (A, B, C, A, B, C, ...) and what to compare
are ratios of the same round's times. The arithmetic floor is the graph's floating-point operations
over the rate at which this machine multiplies large matrices in the same precision.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar, get_args

import numpy as np

from mnemoscope_runtime import Tokens
from mnemoscope_runtime.errors import InputError

from ..detector import Detector
from ..plotting import new_figure, png

__all__ = [
    "Latency",
    "Scenario",
    "asking",
    "environment",
    "offline",
    "plot",
    "server",
    "single_stream",
    "stages",
]

Scenario = Literal["single-stream", "offline", "server"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
PERCENTILES = (50, 90, 95, 99)

Input = TypeVar("Input")


@dataclass(frozen=True)
class Latency:
    """What was measured of one backend.

    Attributes:
        name: The backend.
        seconds: Raw samples: of a query, in the order they were taken. # [sample]
        prompts: How many prompts a query holds.
        ratio: Median over rounds of the first backend's time / this one's; None where rounds are
            not shared.
    """

    name: str
    seconds: tuple[float, ...]
    prompts: int = 1
    ratio: float | None = None

    @property
    def percentiles(self) -> dict[str, float]:
        """Seconds by name: p50, p90, p95, p99, max."""
        values = np.percentile(self.seconds, PERCENTILES).tolist()
        named = {f"p{rank}": value for rank, value in zip(PERCENTILES, values, strict=True)}
        return {**named, "max": max(self.seconds)}

    @property
    def throughput(self) -> float:
        """Prompts per second, were queries asked one after another."""
        return self.prompts / float(np.median(self.seconds))


def single_stream(
    detectors: Mapping[str, Detector],
    prompts: Sequence[str],
    *,
    steps: int = 1,
    noises: int = 1,
    rounds: int = 100,
    warmup: int = 10,
) -> list[Latency]:
    """One prompt at a time, the next when the last is answered."""

    def query(detector: Detector) -> Callable[[str], object]:
        ask = asking(detector, steps=steps, noises=noises)
        return lambda prompt: ask([prompt])

    queries = {name: query(detector) for name, detector in detectors.items()}
    return _interleaved(queries, itertools.cycle(prompts), rounds, warmup, 1)


def offline(
    detectors: Mapping[str, Detector],
    prompts: Sequence[str],
    *,
    steps: int = 1,
    noises: int = 1,
    rounds: int = 3,
    warmup: int = 1,
) -> list[Latency]:
    """All prompts at once."""
    queries = {
        name: asking(detector, steps=steps, noises=noises) for name, detector in detectors.items()
    }
    return _interleaved(queries, itertools.repeat(prompts), rounds, warmup, len(prompts))


def server(
    detector: Detector,
    name: str,
    prompts: Sequence[str],
    *,
    rate: float,
    seconds: float = 10.0,
    workers: int = 4,
    steps: int = 1,
    noises: int = 1,
    seed: int = 0,
) -> Latency:
    """Prompts that arrive at random (Poisson, `rate` a second), for `workers` threads.

    A sample is the time from arrival to answer, waiting included; past what the machine can do it
    grows with the length of the run.

    Raises:
        InputError: rate, seconds or workers are not positive.
    """
    if not (rate > 0 and seconds > 0 and workers > 0):
        raise InputError(
            f"A server run needs a rate, seconds and workers above 0, not {rate}, {seconds}, "
            f"{workers}."
        )
    ask = asking(detector, steps=steps, noises=noises)
    rng = np.random.default_rng(seed)
    count = max(1, round(rate * seconds))
    arrivals = rng.exponential(1 / rate, count).cumsum().tolist()
    start = time.perf_counter() + 0.05

    def answer(arrival: float, prompt: str) -> float:
        ask([prompt])
        return time.perf_counter() - start - arrival

    ask([prompts[0]])
    with ThreadPoolExecutor(workers) as pool:
        futures = []
        for arrival, prompt in zip(arrivals, itertools.cycle(prompts), strict=False):
            time.sleep(max(0.0, start + arrival - time.perf_counter()))
            futures.append(pool.submit(answer, arrival, prompt))
        samples = [future.result() for future in futures]
    return Latency(name, tuple(samples))


def asking(
    detector: Detector, *, steps: int = 1, noises: int = 1
) -> Callable[[Sequence[str]], object]:
    """What is timed: screening, or measuring alone where a detector has not learned anything yet.

    Raises:
        InputError: the detector does not measure so many steps or noises.
    """
    setting = detector.setting(steps=steps, noises=noises)
    known = detector.calibration
    if detector.statistic.is_fitted and (known is None or known.find(setting) is None):
        return lambda prompts: detector.measure(prompts, steps=steps, noises=noises)
    return lambda prompts: detector.screen(prompts, steps=steps, noises=noises)


def stages(
    detector: Detector, prompts: Sequence[str], *, rounds: int = 100, warmup: int = 10
) -> dict[str, float]:
    """Where a query's time goes: medians in seconds of one prompt's magnitude on one noise.

    The text encoder is inside the screening graph, or run before it, so its own graph is timed, and
    taken off.
    Differences are taken within a round; one that noise makes negative counts as 0.
    """
    screener = detector.screener
    text, screen = (
        screener.backend.load(screener.bundle, graph) for graph in ("text_encoder", "screen")
    )
    one = np.zeros(1, np.int64)
    ids = {prompt: screener.tokenizer([prompt]) for prompt in prompts}

    def whole_screen(prompt: str) -> object:
        if screener.bundle.manifest.encodes_apart:
            return screener.first_step(Tokens(ids[prompt], (False,)), noises=1)
        return screen({"input_ids": ids[prompt], "noise_index": one}, ("magnitude",))

    queries: dict[str, Callable[[str], object]] = {
        "tokenizer": lambda prompt: screener.tokenizer([prompt]),
        "text encoder": lambda prompt: text({"input_ids": ids[prompt]}, ("prompt_embeds",)),
        "screen": whole_screen,
        "whole": lambda prompt: detector.screen([prompt], noises=1),
    }
    rows = _interleaved(queries, itertools.cycle(prompts), rounds, warmup, 1)
    taken = {row.name: np.array(row.seconds) for row in rows}
    parts = {
        "tokenizer": taken["tokenizer"],
        "text encoder": taken["text encoder"],
        "network and magnitude": taken["screen"] - taken["text encoder"],
        "the rest of the SDK": taken["whole"] - taken["screen"] - taken["tokenizer"],
        "whole": taken["whole"],
    }
    return {name: max(0.0, float(np.median(seconds))) for name, seconds in parts.items()}


def plot(rows: Sequence[Latency]) -> bytes:
    """The share of queries that were answered within a time, for every backend, as PNG.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure = new_figure(7, 4, extra="bench")
    axes = figure.subplots()
    for row in rows:
        axes.ecdf(np.array(row.seconds) * 1e3, label=row.name)
    axes.set(xlabel="ms", ylabel="share of queries", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def environment(threads: int | None) -> dict[str, str]:
    """The machine and the versions that a figure belongs to."""
    packages = (
        *("mnemoscope", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino"),
        *("tensorrt", "tensorrt_rtx_cu13_libs", "tokenizers"),
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads or "the backend's choice"),
        **{name: found for name in packages if (found := _version(name))},
    }


def _interleaved(
    queries: Mapping[str, Callable[[Input], object]],
    inputs: Iterator[Input],
    rounds: int,
    warmup: int,
    prompts: int,
) -> list[Latency]:
    """Time every query once a round, all on the same input."""
    times = np.empty((rounds, len(queries)))
    for turn, item in zip(range(-warmup, rounds), inputs, strict=False):
        for column, run in enumerate(queries.values()):
            start = time.perf_counter()
            run(item)
            if turn >= 0:
                times[turn, column] = time.perf_counter() - start
    ratios = np.median(times[:, :1] / times, axis=0)
    return [
        Latency(name, tuple(times[:, column].tolist()), prompts, float(ratios[column]))
        for column, name in enumerate(queries)
    ]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

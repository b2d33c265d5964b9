"""`mnemoscope bench`."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mnemoscope_runtime import BackendOptions, BackendUnavailable, InputError
from mnemoscope_runtime.manifest import Precision

from .. import embedded
from ..benchmark import latency as bench
from ..benchmark.gemm import gemm_rate
from ..detector import Detector
from ..outputs import write_files
from ..plotting import require_plots
from ._backends import choose_backend, options_of_each, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._options import (
    DetectorOption,
    StepsOption,
    TrustOption,
    require_folder,
    stages,
    takes_backend_options,
)

__all__ = ["command"]


@takes_backend_options
def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to measure.", show_default="embedded")
    ] = None,
    backends: Annotated[
        str,
        typer.Option(
            help="Backends, with commas; ratios are to the first. torch and torch-compile, too."
        ),
    ] = "onnxruntime",
    scenario: Annotated[bench.Scenario, typer.Option(help="MLPerf's scenarios.")] = "single-stream",
    model: ModelOption = None,
    *,
    options: BackendOptions,
    trust: TrustOption = None,
    detector: DetectorOption = "magnitude",
    steps: StepsOption = 1,
    noises: Annotated[int, typer.Option(help="Noises of the bank to use.")] = 1,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Rounds after warm-up; not for server.", show_default="100, or 3 offline"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="server: prompts that arrive per second.", show_default="10"),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="server: for how long.", show_default="10")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="server: threads that answer.", show_default="4")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for bench.json and bench.png.")
    ] = None,
) -> None:
    """Measure latency or throughput of backends on a bundle, side by side.

    A detector that learns is timed without its verdict, unless the bundle is calibrated for it.
    Stages and the floor are known of the magnitude at the first step alone.
    """
    names = [name.strip() for name in backends.split(",") if name.strip()]
    if not names:
        raise InputError("No backend to measure. Give one or more, with commas between them.")
    if rounds is not None and rounds < 1:
        raise InputError(f"{rounds} rounds measure nothing. Give 1 or more.")
    _check_scenario(scenario, rounds, rate=rate, seconds=seconds, workers=workers)
    check_model(model, names, [detector])
    told = options_of_each(names, options)
    if output is not None:
        require_folder(output, "--output")
        require_plots(extra="bench", otherwise="leave out --output")
    [statistic] = open_detectors([detector], bundle, model)
    prompts = [row.prompt for row in embedded.read_prompts("held_out")]
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a pipe has no width, and figures must not be cut
    with ExitStack() as stack:
        now = stack.enter_context(stages(f"opening {names[0]}", still=True))
        detectors, opened, precisions = {}, {}, {}
        for name in names:
            now(f"opening {name}")
            start = time.perf_counter()
            backend, own = choose_backend(name, bundle, model, told[name])
            screen = stack.enter_context(
                Detector.load(
                    bundle,
                    backend=backend,
                    detector=statistic,
                    uncalibrated="score",
                    trust=trust,
                    **asdict(own),
                )
            )
            bench.asking(screen, steps=steps, noises=noises)(prompts[:1])
            taken = time.perf_counter() - start
            say_unused(name, told[name], screen.screener.backend)
            became = screen.screener.backend.name if name == "auto" else name
            label = f"auto ({became})" if name == "auto" else name
            opened[label], detectors[label], precisions[label] = taken, screen, _precision(became)
        now(f"measuring, {scenario}: {', '.join(detectors)}")
        if scenario == "server":
            rate = 10.0 if rate is None else rate
            seconds = 10.0 if seconds is None else seconds
            workers = 4 if workers is None else workers
            settings: dict[str, float] = {"rate": rate, "seconds": seconds, "workers": workers}
            rows = [
                bench.server(
                    screen, name, prompts, rate=rate, seconds=seconds, workers=workers,
                    steps=steps, noises=noises,
                )
                for name, screen in detectors.items()
            ]  # fmt: skip
        elif scenario == "offline":
            settings = {"rounds": rounds or 3, "prompts": len(prompts)}
            rows = bench.offline(detectors, prompts, steps=steps, noises=noises, rounds=rounds or 3)
        else:
            settings = {"rounds": rounds or 100}
            rows = bench.single_stream(
                detectors, prompts, steps=steps, noises=noises, rounds=rounds or 100
            )
        first = statistic.name == "magnitude" and steps == 1  # what the screening graph answers
        now("measuring the stages of a query")
        split = {
            name: bench.stages(each, prompts[:8], rounds=rounds or 100)
            for name, each in detectors.items()
            if first
        }
        asked = next(iter(detectors.values())).screener.bundle
        flops = asked.manifest.flops["screen"]
        now("measuring this machine's matrix rate")
        rates = {p: _rate(p, options.threads) for p in dict.fromkeys(precisions.values()) if first}
    floors = {name: _floor(flops * noises, rates.get(p)) for name, p in precisions.items()}
    console.print(_latencies(scenario, rows, floors, opened))
    if split and scenario == "single-stream":
        console.print(_stages(split))
    if output is not None:
        report = {
            "scenario": scenario,
            "bundle": asked.id,
            "model": asked.manifest.model.id,
            "precision": asked.manifest.precision,
            "detector": statistic.name,
            "steps": steps,
            "noises": noises,
            **settings,
            "flops_per_noise": flops if first else None,
            "environment": bench.environment(options.threads),
            "backends": [
                {**asdict(row), **row.percentiles, "floor": floors[row.name],
                 "open_seconds": opened[row.name], "stages": split.get(row.name)}
                for row in rows
            ],
        }  # fmt: skip
        _write(output, report, rows)
        console.print(f"samples {output / 'bench.json'}, plot {output / 'bench.png'}")


def _check_scenario(scenario: bench.Scenario, rounds: int | None, **served: float | None) -> None:
    """Refuse options of other scenarios.

    Raises:
        InputError: one is given.
    """
    given = [f"--{name}" for name, value in served.items() if value is not None]
    if scenario == "server" and rounds is not None:
        raise InputError(
            "--rounds is not for --scenario server, which runs for a time. Leave it out, or give "
            "--seconds."
        )
    if scenario != "server" and given:
        verb, them = ("belongs", "it") if len(given) == 1 else ("belong", "them")
        raise InputError(f"{', '.join(given)} {verb} to --scenario server. Leave {them} out.")


def _floor(flops: int, rate: float | None) -> float | None:
    """Seconds that the arithmetic alone takes; None if the machine's matrix rate is unknown."""
    return None if rate is None else flops / rate


def _rate(precision: Precision, threads: int | None) -> float | None:
    """This machine's matrix rate, which sets the floor; None if unknown."""
    try:
        return gemm_rate(precision, threads)
    except BackendUnavailable as error:
        typer.echo(f"note: no floor in {precision}: {error}", err=True)
        return None


def _precision(backend: str) -> Precision:
    known: dict[str, Precision] = {p: p for p in ("float32", "bfloat16", "float16")}
    return known[backend.partition(":")[2] or "float32"]


def _latencies(
    scenario: bench.Scenario,
    rows: list[bench.Latency],
    floors: dict[str, float | None],
    opened: dict[str, float],
) -> Table:
    table = Table(title=scenario, title_justify="left", box=None)
    for heading in ("backend", "p50 ms", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="left" if heading == "backend" else "right")
    serves = scenario == "server"
    extra = () if serves else ("prompts/s", "x faster", "of the floor")
    for heading in (*extra, "opened in s"):
        table.add_column(heading, justify="right")
    if not serves:
        table.caption = (
            "x faster: median over rounds of the first backend's time by this one's, which may "
            "differ from the ratio of medians.\nof the floor: what the counted arithmetic alone "
            "takes at this machine's matrix rate, by the time taken; 100 % is the best there is."
        )
        table.caption_justify = "left"
    for row in rows:
        floor = floors[row.name]
        each = row.percentiles["p50"] / row.prompts
        table.add_row(
            row.name,
            *(f"{value * 1e3:.2f}" for value in row.percentiles.values()),
            *(
                ()
                if serves
                else (
                    f"{row.throughput:.1f}",
                    "" if row.ratio is None else f"{row.ratio:.2f}",
                    "" if floor is None else f"{floor / each:.0%}",
                )
            ),
            f"{opened[row.name]:.2f}",
        )
    return table


def _stages(split: dict[str, dict[str, float]]) -> Table:
    table = Table(title="stages, in a run of their own: median ms", title_justify="left", box=None)
    table.add_column("stage")
    for name in split:
        table.add_column(name, justify="right")
    for stage in next(iter(split.values())):
        table.add_row(stage, *(f"{times[stage] * 1e3:.3f}" for times in split.values()))
    return table


def _write(output: Path, report: dict[str, Any], rows: list[bench.Latency]) -> None:
    text = f"{json.dumps(report, indent=1)}\n"
    write_files(output, {"bench.json": text.encode(), "bench.png": bench.plot(rows)})

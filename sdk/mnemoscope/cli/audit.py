"""`mnemoscope audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import InputError

from ..audit import audit
from ..detector import Detector
from ._options import (
    EXIT_CODES,
    BackendOption,
    BundleOption,
    CalibrationOption,
    ClearOption,
    DetectorOption,
    DeviceOption,
    EnginesOption,
    FirstNoisesOption,
    FirstOption,
    FirstStepsOption,
    NoisesOption,
    NoQuotesOption,
    StepsOption,
    ThreadsOption,
    first_stage,
    progress_bar,
    say,
    verdict_code,
)

__all__ = ["EPILOG", "command"]

EPILOG = f"""
[bold]Examples[/bold]

mnemoscope audit prompts.csv --output results.csv

mnemoscope audit captions.parquet --column caption --bundle my-bundle --fdr 0.01
--output results.parquet --report report.html
{EXIT_CODES}"""


def command(
    file: Annotated[str, typer.Argument(help=".txt, .jsonl, .csv, .tsv or .parquet of prompts.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Results: .jsonl, .csv or .parquet.")
    ],
    column: Annotated[str | None, typer.Option(help="Column that holds the prompt.")] = None,
    no_quotes: NoQuotesOption = False,
    bundle: BundleOption = None,
    calibration: CalibrationOption = None,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    engines: EnginesOption = None,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    first: FirstOption = None,
    first_steps: FirstStepsOption = None,
    first_noises: FirstNoisesOption = None,
    clear: ClearOption = None,
    fdr: Annotated[
        float, typer.Option(help="Share of the flagged that may be benign, on average.")
    ] = 0.05,
    dependent: Annotated[
        bool,
        typer.Option("--dependent", help="Make it hold for any dependence: flags fewer prompts."),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Measure all again, whatever OUTPUT.partial holds.")
    ] = False,
) -> None:
    """Screen a long list of prompts and flag some at a false-discovery rate.

    What was measured is kept in OUTPUT.partial: after a kill the same command goes on.

    Needs `pip install 'mnemoscope\\[calibrate]'`, and for --report `mnemoscope\\[plot]`.
    """
    if file == "-":
        raise InputError("An audit reads its prompts several times: save them to a file.")
    with (
        Detector.load(
            bundle,
            backend=backend,
            threads=threads,
            device=device,
            engines=engines,
            calibration=calibration,
            detector=detector,
            first=first_stage(first, first_steps, first_noises, clear),
        ) as screen,
        progress_bar("auditing") as progress,
    ):
        if backend == "auto":
            say(f"backend: {screen.screener.backend.name}")
        try:
            found = audit(
                screen,
                file,
                output,
                column=column,
                quotes=not no_quotes,
                fdr=fdr,
                dependent=dependent,
                steps=steps,
                noises=noises,
                report_to=report,
                restart=restart,
                progress=progress,
                tell=say,
            )
        except KeyboardInterrupt:
            say(f"stopped; what was measured is in {output}.partial, and the same command goes on.")
            raise
        reads = screen.screener.tokenizer.length - 2  # less start and end
    if found.truncated:
        say(
            f"the bundle reads {reads} tokens, and {found.truncated:,} prompts had more "
            "(`truncated`). What came after was not screened. A plain diffusers pipeline does not "
            "read it either; one that reads long prompts in chunks does."
        )
    typer.echo(found.verdict)
    typer.echo(f"results {output}")
    if report is not None:
        typer.echo(f"report {report}")
    raise typer.Exit(verdict_code(flagged=found.flagged > 0, judged=not found.errors))

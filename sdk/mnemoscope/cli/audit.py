"""`mnemoscope audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendOptions, InputError

from ..audit import audit
from ..calibration.cascade import First
from ..detector import Detector
from ._backends import choose_backend, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._options import (
    EXIT_CODES,
    BackendOption,
    BundleOption,
    CalibrationOption,
    DetectorOption,
    NoisesOption,
    NoQuotesOption,
    StepsOption,
    TrustOption,
    progress_bar,
    say,
    takes_backend_options,
    takes_first_stage,
    verdict_code,
)

__all__ = ["EPILOG", "command"]

EPILOG = f"""
[bold]Examples[/bold]

mnemoscope audit prompts.csv --output results.csv

mnemoscope audit captions.parquet --column caption --bundle my-bundle --fdr 0.01
--output results.parquet --report report.html
{EXIT_CODES}"""


@takes_backend_options
@takes_first_stage
def command(
    file: Annotated[str, typer.Argument(help=".txt, .jsonl, .csv, .tsv or .parquet of prompts.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Results: .jsonl, .csv or .parquet.")
    ],
    column: Annotated[str | None, typer.Option(help="Column that holds the prompt.")] = None,
    no_quotes: NoQuotesOption = False,
    bundle: BundleOption = None,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    model: ModelOption = None,
    *,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    first: First | None,
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
    check_model(model, [backend], [detector])
    runs, told = choose_backend(backend, bundle, model, options)
    [statistic] = open_detectors([detector], bundle, model)
    with (
        Detector.load(
            bundle,
            backend=runs,
            **asdict(told),
            calibration=calibration,
            detector=statistic,
            first=first,
            trust=trust,
        ) as screen,
        progress_bar("auditing") as progress,
    ):
        if backend == "auto":
            say(f"backend: {screen.screener.backend.name}")
        say_unused(backend, options, screen.screener.backend)
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

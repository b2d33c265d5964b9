"""`mnemoscope triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendOptions

from ..serve.service.options import MODEL
from ..serve.triton import ModelOptions, write_model
from ..serve.triton.config import Scheduling
from ._options import (
    CalibrationOption,
    DetectorOption,
    NoisesOption,
    StepsOption,
    TrustOption,
    say,
    takes_backend_options,
)

__all__ = ["command"]


@takes_backend_options
def command(
    repository: Annotated[Path, typer.Argument(help="Triton's model repository.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to serve.", show_default="embedded")
    ] = None,
    name: Annotated[str, typer.Option(help="What clients call the model.")] = MODEL,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: Annotated[str, typer.Option(help="What runs the graphs.")] = "onnxruntime",
    *,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    show_scores: Annotated[
        bool, typer.Option("--show-scores", help="Show callers scores and p-values as well.")
    ] = False,
    max_batch: Annotated[
        int | None,
        typer.Option(
            help="The most prompts at a time, and in a request.", show_default="8, on a GPU 32"
        ),
    ] = None,
    instances: Annotated[int, typer.Option(help="Processes, each with engines of its own.")] = 1,
    environment: Annotated[
        str | None,
        typer.Option(
            help="Python environment to run in, a folder or an archive on the machine that serves.",
            show_default="Triton's own Python",
        ),
    ] = None,
    by_triton: Annotated[
        bool,
        typer.Option(
            "--by-triton",
            help="A backend of Triton's runs the screening graph: onnxruntime, onnxruntime-cuda, "
            "or tensorrt with a plan of `mnemoscope build`.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a model of that name.")] = False,
) -> None:
    """Write a model for NVIDIA's Triton Inference Server: bundle, calibration and config.

    Python packages are not part of it: install the extra `onnxruntime` and 'numpy<2' where
    Triton runs. --engines, --trust and --environment name places on that machine.
    """
    out = write_model(
        repository,
        bundle,
        ModelOptions(
            backend=backend,
            threads=options.threads,
            device=options.device,
            engines=None if options.engines is None else str(options.engines),
            batch=options.batch,
            contexts=options.contexts,
            trust=None if trust is None else str(trust.resolve()),
            detector=detector,
            steps=steps,
            noises=noises,
            show_scores=show_scores,
        ),
        Scheduling(max_batch, instances, environment),
        name=name,
        calibration=calibration,
        by_triton=by_triton,
        overwrite=overwrite,
        tell=say,
    )
    typer.echo(out)

"""`mnemoscope ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from mnemoscope_runtime import BackendOptions

from ..shipped import model_of
from ..ui import UiOptions
from ..ui.running import run
from ._options import (
    BackendOption,
    BundleOption,
    CalibrationOption,
    DetectorOption,
    NoisesOption,
    StepsOption,
    TrustOption,
    takes_backend_options,
)

__all__ = ["EPILOG", "command"]

_DEFAULTS = UiOptions()

EPILOG = """
[bold]Examples[/bold]

mnemoscope ui

mnemoscope ui --bundle my-bundle --model path/to/stable-diffusion --port 8000

[bold]Exit codes[/bold]: 0 stopped by SIGTERM or SIGINT; 2 usage, 3 environment or backend, 4 bundle
or calibration mismatch.
"""


@takes_backend_options
def command(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than loopback are for everybody.")
    ] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = _DEFAULTS.port,
    bundle: BundleOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the bundle, for pictures and gradients.",
            show_default="of a bundle that ships its own",
        ),
    ] = None,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = _DEFAULTS.backend,
    *,
    options: BackendOptions,
    detector: DetectorOption = _DEFAULTS.detector,
    noises: NoisesOption = None,
    steps: StepsOption = _DEFAULTS.steps,
) -> None:
    """Open a page to screen, explain, edit and draw prompts, and to audit files.

    The page asks nothing of other machines and keeps no prompt.

    Needs the extra `ui`, for pictures and gradients `torch` too.
    """
    wanted = UiOptions(
        host=host,
        port=port,
        bundle=bundle,
        model=model_of(bundle, model),
        calibration=calibration,
        trust=trust,
        backend=backend,
        backend_options=options,
        detector=detector,
        steps=steps,
        noises=noises,
    )
    run(wanted, lambda text: typer.echo(text, err=True))

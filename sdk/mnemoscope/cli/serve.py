"""`mnemoscope serve`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendOptions, BackendUnavailable
from mnemoscope_runtime.wording import pip_install

from ..calibration.cascade import First
from ..serve import Limits
from ..serve.service.options import MODEL, ServiceOptions, Source
from ._logs import logged
from ._options import (
    BackendOption,
    DetectorOption,
    NoisesOption,
    StepsOption,
    TrustOption,
    takes_backend_options,
    takes_first_stage,
)
from ._shipped import place_of

__all__ = ["EPILOG", "command"]

_LIMITS = Limits()
_DEFAULTS = ServiceOptions()

EPILOG = """
[bold]Examples[/bold]

mnemoscope serve

mnemoscope serve --host 0.0.0.0 --keys keys.txt --model sd15=bundles/sd15
--model sdxl=bundles/sdxl:sdxl.json --max-batch 32 --wait 0.002

[bold]Exit codes[/bold]: 0 stopped by SIGTERM or SIGINT, with everything answered; 2 usage, 3
environment or backend, 4 bundle or calibration mismatch.
"""


@takes_backend_options
@takes_first_stage
def command(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than loopback are for everybody.")
    ] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help="Port of HTTP; 0 takes a free one.")] = _DEFAULTS.port,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of gRPC; likewise.")
    ] = _DEFAULTS.grpc_port,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="HTTP alone.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BUNDLE[:CALIBRATION]",
            help="A model to serve; may be repeated.",
            show_default=f"{MODEL}, the embedded one",
        ),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Folder of bundles that clients may load, with --control.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Let clients load, reload and unload models.")
    ] = False,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Prompts that are measured at a time.")
    ] = _LIMITS.batch,
    queue: Annotated[
        int, typer.Option(min=1, help="Prompts that may wait; who comes then is refused (429).")
    ] = _LIMITS.queue,
    wait: Annotated[
        float,
        typer.Option(help="Seconds that a batch waits for more, if there were more just now."),
    ] = _LIMITS.wait,
    lanes: Annotated[
        int, typer.Option(min=1, help="Batches of a model that are measured at a time.")
    ] = _LIMITS.lanes,
    patience: Annotated[
        float | None,
        typer.Option(
            help="Seconds that a prompt may have to wait; who would for longer is refused (429).",
            show_default="any time",
        ),
    ] = _LIMITS.patience,
    timeout: Annotated[
        float, typer.Option(help="Seconds to send a request in, and again to answer it.")
    ] = _DEFAULTS.timeout,
    linger: Annotated[
        float, typer.Option(help="Seconds after a signal in which it still takes requests on.")
    ] = _DEFAULTS.linger,
    max_body: Annotated[
        int, typer.Option(min=1, max=2**30, help="Bytes of a request.")
    ] = _DEFAULTS.body,
    max_prompts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Prompts of a request.",
            show_default=f"{_DEFAULTS.prompts}, or --queue if that is less",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="File of keys, one a line, of which clients need one.",
            show_default="nobody needs one",
        ),
    ] = None,
    show_scores: Annotated[
        bool, typer.Option("--show-scores", help="Show clients scores; see docs/security.md.")
    ] = False,
    refuse_truncated: Annotated[
        bool,
        typer.Option(
            "--refuse-truncated",
            help="No verdict for a prompt whose end was not read, unless the rest is memorised.",
        ),
    ] = False,
    cache: Annotated[
        int, typer.Option(help="Verdicts to keep for prompts that come again.")
    ] = _DEFAULTS.cache,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    *,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    first: First | None,
) -> None:
    """Answer over HTTP and gRPC (Open Inference Protocol v2) which prompts are memorised.

    Needs the extra `serve`.
    """
    try:
        from ..serve.service.running import new_loop, serve
    except ImportError as error:
        raise BackendUnavailable(
            f"A service cannot be run: {error}. Install what it takes with {pip_install('serve')}."
        ) from None
    wanted = ServiceOptions(
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        models=tuple(Source.parse(place_of(each)) for each in model or ()) or _DEFAULTS.models,
        models_dir=models_dir,
        control=control,
        limits=Limits(max_batch, queue, wait, lanes, patience),
        cache=cache,
        steps=steps,
        noises=noises,
        detector=detector,
        first=first,
        backend=backend,
        backend_options=options,
        trust=trust,
        timeout=timeout,
        linger=linger,
        body=max_body,
        prompts=min(_DEFAULTS.prompts, queue) if max_prompts is None else max_prompts,
        show_scores=show_scores,
        refuse_truncated=refuse_truncated,
        keys=keys,
    )
    with logged() as begin, asyncio.Runner(loop_factory=new_loop) as runner:

        def say(text: str) -> None:
            typer.echo(text, err=True)
            begin()

        runner.run(serve(wanted, say))

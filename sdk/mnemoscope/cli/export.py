"""`mnemoscope export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendUnavailable
from mnemoscope_runtime.manifest import Precision

from ._quiet import quiet_libraries

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="Directory in diffusers' layout, or hub id.")],
    out: Annotated[Path, typer.Argument(help="Directory to write; must not exist.")],
    from_onnx: Annotated[
        bool,
        typer.Option("--from-onnx", help="MODEL is a directory that Optimum exported to ONNX."),
    ] = False,
    noises: Annotated[int, typer.Option(help="Size of the noise bank.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise bank.")] = 0,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance of sampling.")] = 7.5,
    inference_steps: Annotated[int, typer.Option(help="DDIM steps of a whole image.")] = 50,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="What the graphs compute in.", show_default="float32; with --from-onnx the model's"
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest relative error of a magnitude.", show_default="1e-4 in float32"),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Export a model to a bundle: engines, tokenizer, noise bank, checked against the model.

    Needs `pip install 'mnemoscope\\[export]'`; with --from-onnx no PyTorch, but
    `pip install 'mnemoscope\\[from-onnx]'`. Screening the bundle needs neither.
    """
    quiet_libraries()
    try:
        from mnemoscope_export import ExportOptions, Tolerance, check_target, export_onnx

        if not from_onnx:
            from mnemoscope_export import StableDiffusion, export_bundle
    except ImportError as error:
        what, extra = ("ONNX", "from-onnx") if from_onnx else ("PyTorch and ONNX", "export")
        raise BackendUnavailable(
            f"Exporting needs {what}: {error}. Install them with "
            f"`pip install 'mnemoscope[{extra}]'`."
        ) from None
    options = ExportOptions(
        noises=noises,
        seed=seed,
        guidance=guidance,
        inference_steps=inference_steps,
        precision=precision,
        tolerance=None if tolerance is None else Tolerance(tolerance),
        overwrite=overwrite,
    )
    check_target(out, overwrite)

    def progress(stage: str) -> None:
        typer.echo(stage, err=True)

    progress(f"loading {model}")
    if from_onnx:
        bundle = export_onnx(model, out, options, progress=progress)
    else:
        bundle = export_bundle(StableDiffusion.load(model), out, options, progress=progress)
    for graph, figures in bundle.manifest.parity.items():
        typer.echo(f"{graph}: relative error {figures['max_relative_error']:.1e}", err=True)
    typer.echo(f"{out}  {bundle.id[:12]}")

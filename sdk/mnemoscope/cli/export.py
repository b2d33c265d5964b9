"""`mnemoscope export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendUnavailable, InputError
from mnemoscope_runtime.engines.library import import_library
from mnemoscope_runtime.manifest import Precision

from ._quiet import quiet_libraries
from .build import check_builds

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="Directory in diffusers' layout, or hub id.")],
    out: Annotated[Path, typer.Argument(help="Directory to write; must not exist.")],
    noises: Annotated[int, typer.Option(help="Size of the noise bank.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise bank.")] = 0,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance of sampling.")] = 7.5,
    inference_steps: Annotated[int, typer.Option(help="DDIM steps of a whole image.")] = 50,
    precision: Annotated[Precision, typer.Option(help="What the graphs compute in.")] = "float32",
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest relative error of a magnitude.", show_default="1e-4 in float32"),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    check: Annotated[
        str | None,
        typer.Option(
            help="tensorrt: after exporting, see whether every graph builds there. TensorRT for "
            "RTX, which needs no GPU, stands in for it."
        ),
    ] = None,
) -> None:
    """Export a model to a bundle: engines, tokenizer, noise bank, checked against PyTorch.

    Needs `pip install 'mnemoscope\\[export]'`; screening the bundle does not.
    """
    if check not in (None, "tensorrt"):
        raise InputError(f"There is no check {check!r}. Leave it out, or give tensorrt.")
    if check:
        import_library("tensorrt-rtx")  # before the work, not after
    quiet_libraries()
    try:
        from mnemoscope_export import (
            ExportOptions,
            StableDiffusion,
            Tolerance,
            check_oracle,
            check_target,
            export_bundle,
        )
    except ImportError as error:
        raise BackendUnavailable(
            f"Exporting needs PyTorch and ONNX: {error}. "
            "Install them with `pip install 'mnemoscope[export]'`."
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
    check_oracle(options.precision)

    def progress(stage: str) -> None:
        typer.echo(stage, err=True)

    progress(f"loading {model}")
    bundle = export_bundle(lambda: StableDiffusion.load(model), out, options, progress=progress)
    for graph, figures in bundle.manifest.parity.items():
        typer.echo(f"{graph}: relative error {figures['max_relative_error']:.1e}", err=True)
    typer.echo(f"{out}  {bundle.id[:12]}")
    if check:
        check_builds(bundle)

"""`mnemoscope generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..drawing.generate import generate, require_torch
from ..drawing.sheets import ENDINGS, write_sheet
from ..quiet import quiet_libraries
from ._loading import LatentSizeOption, Loading, sides_of, takes_loading
from ._options import require_place, stages
from ._texts import refuse_files

__all__ = ["command"]


@takes_loading
def command(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image to write.")],
    model: Annotated[
        str | None,
        typer.Option(help="Directory, .safetensors file, or hub id.", show_default="embedded"),
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    images: Annotated[int, typer.Option(min=1, help="Images, side by side, one per seed.")] = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of the sampler: DDIM, or Euler's of a flow.",
            show_default="its pipeline's, 50 for Stable Diffusion",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance; of FLUX.1 dev the guidance that it is told.",
            show_default="its pipeline's, 7.5 for Stable Diffusion",
        ),
    ] = None,
    *,
    loading: Loading,
    latent_size: LatentSizeOption = None,
    scale: Annotated[int, typer.Option(min=1, help="Enlarge each pixel this many times.")] = 1,
) -> None:
    """Draw what a model makes of a prompt: a memorised one gives the same picture for every seed.

    Needs the extra `torch`.
    """
    refuse_files([prompt], "Give one prompt of it.", "put a space behind it")
    quiet_libraries()
    require_place(output, "--output", *ENDINGS)
    seeds = range(seed, seed + images)
    options = None
    if loading.given or latent_size is not None:
        require_torch()
        options = loading.options(None if latent_size is None else sides_of(latent_size))
    with stages("loading") as progress:
        drawn = generate(
            prompt, model=model, seeds=seeds, steps=steps, guidance=guidance, options=options,
            progress=progress,
        )  # fmt: skip
    from PIL import Image

    size = drawn[0].width * scale, drawn[0].height * scale
    write_sheet(output, [each.resize(size, Image.Resampling.NEAREST) for each in drawn])
    typer.echo(str(output))

"""`mnemoscope generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import InputError

from ..generate import generate, require_torch
from ._loading import (
    ClipSkipOption,
    ConfigOption,
    EmbeddingOption,
    LoraOption,
    NegativeOption,
    VariantOption,
    load_options,
)
from ._options import require_place
from ._quiet import quiet_libraries

__all__ = ["command"]


def command(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image to write.")],
    model: Annotated[
        str | None,
        typer.Option(help="Directory, .safetensors file, or hub id.", show_default="embedded"),
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    images: Annotated[int, typer.Option(min=1, help="Images, side by side, one per seed.")] = 1,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 7.5,
    variant: VariantOption = None,
    config: ConfigOption = None,
    lora: LoraOption = None,
    embedding: EmbeddingOption = None,
    clip_skip: ClipSkipOption = None,
    negative: NegativeOption = None,
    scale: Annotated[int, typer.Option(min=1, help="Enlarge each pixel this many times.")] = 1,
) -> None:
    """Draw what a model makes of a prompt: a memorised one gives the same picture for every seed.

    Needs `pip install 'mnemoscope\\[torch]'`.
    """
    quiet_libraries()
    require_place(output, "--output")
    seeds = range(seed, seed + images)
    options = None
    if any(each is not None for each in (variant, config, lora, embedding, clip_skip, negative)):
        require_torch()
        options = load_options(
            variant=variant, config=config, lora=lora, embedding=embedding, clip_skip=clip_skip,
            negative=negative,
        )  # fmt: skip
    drawn = generate(
        prompt, model=model, seeds=seeds, steps=steps, guidance=guidance, options=options
    )
    from PIL import Image

    width, height = drawn[0].width * scale, drawn[0].height * scale
    sheet = Image.new("RGB", (width * len(drawn), height))
    for i, image in enumerate(drawn):
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (i * width, 0))
    try:
        sheet.save(output)
    except (OSError, ValueError) as error:
        raise InputError(f"{output} cannot be written: {error}. Choose another --output.") from None
    typer.echo(str(output))

"""How a PyTorch model is loaded: options of every verb that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemoscope_runtime import ClipTokenizer

from ..weighting import weighting
from ._options import say

if TYPE_CHECKING:
    from mnemoscope_export import LoadOptions

__all__ = [
    "ClipSkipOption",
    "ConfigOption",
    "EmbeddingOption",
    "LoraOption",
    "NegativeOption",
    "VariantOption",
    "load_options",
    "say_if_cut",
]

VariantOption = Annotated[
    str | None, typer.Option(help="Variant of the model's files, such as fp16.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="For a single-file checkpoint: directory in diffusers' layout with its family's "
        "configs and tokenizer."
    ),
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="LoRA adapter to put into the weights; may be repeated.",
    ),
]
EmbeddingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding", metavar="FILE[:TOKEN]", help="Textual inversion to add; may be repeated."
    ),
]
ClipSkipOption = Annotated[
    int | None,
    typer.Option(help="Layers of the text encoder to leave out, as diffusers counts: from 0."),
]
NegativeOption = Annotated[
    str | None,
    typer.Option(help="Negative prompt that you always use.", show_default="the empty prompt"),
]


def load_options(
    *,
    variant: str | None = None,
    config: Path | None = None,
    latent_size: tuple[int, int] | None = None,
    lora: list[str] | None = None,
    embedding: list[str] | None = None,
    clip_skip: int | None = None,
    negative: str | None = None,
) -> LoadOptions:
    """What these options say.

    Raises:
        InputError: one of them is not written as it should be.
        ImportError: PyTorch or diffusers is not installed.
    """
    from mnemoscope_export import Embedding, LoadOptions, Lora

    if negative and (pieces := weighting(negative)):
        say(f"{pieces[0]} in the negative prompt is read literally, as diffusers does.")

    return LoadOptions(
        variant=variant,
        config=config,
        latent_size=latent_size,
        loras=tuple(map(Lora.parse, lora or ())),
        embeddings=tuple(map(Embedding.parse, embedding or ())),
        clip_skip=clip_skip,
        negative=negative,
    )


def say_if_cut(negative: str | None, tokenizer: ClipTokenizer) -> None:
    """Tell the user that a negative prompt has an end that nothing reads."""
    if negative and tokenizer.encode([negative]).truncated[0]:
        say(
            f"only the first {tokenizer.length - 2} tokens of the negative prompt are read, as "
            "diffusers does."
        )

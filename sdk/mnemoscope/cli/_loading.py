"""How a PyTorch model is loaded: options of every verb that takes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemoscope_runtime import InputError, Tokenizer

from ..screening.weighting import weighting
from ._options import gathers, say
from ._texts import refuse_files

if TYPE_CHECKING:
    from mnemoscope_export import LoadOptions

__all__ = ["LatentSizeOption", "Loading", "say_if_cut", "sides_of", "takes_loading"]

LatentSizeOption = Annotated[
    str | None,
    typer.Option(
        help="Size of the latents, N or HEIGHTxWIDTH. The VAE says how many pixels that is: 8 for "
        "each in Stable Diffusion, where 64 stands for pictures of 512.",
        show_default="what the model was trained on",
    ),
]


@dataclass(frozen=True)
class Loading:
    """How the model of a command is loaded, as its options say; None for what is not given.

    Attributes:
        variant: As in `LoadOptions`, like the others.
        config: A directory.
        lora: Texts of the form FILE[:SCALE].
        embedding: Texts of the form FILE[:TOKEN].
        clip_skip: Layers.
        negative: A prompt.
    """

    variant: str | None = None
    config: Path | None = None
    lora: Sequence[str] | None = None
    embedding: Sequence[str] | None = None
    clip_skip: int | None = None
    negative: str | None = None

    @property
    def given(self) -> list[str]:
        """Names of the options that are given."""
        return [name for name, value in vars(self).items() if value is not None]

    def options(self, latent_size: tuple[int, int] | None = None) -> LoadOptions:
        """What these options say.

        Raises:
            InputError: one of them is not written as it should be.
            ImportError: PyTorch or diffusers is not installed.
        """
        from mnemoscope_export import Embedding, LoadOptions, Lora

        refuse_files(
            [self.negative] if self.negative else (),
            "Give the negative prompt in words (--negative).",
            "put a space behind it",
        )
        if self.negative and (pieces := weighting(self.negative)):
            say(f"{pieces[0]} in the negative prompt is read literally, as diffusers does.")
        return LoadOptions(
            variant=self.variant,
            config=self.config,
            latent_size=latent_size,
            loras=tuple(map(Lora.parse, self.lora or ())),
            embeddings=tuple(map(Embedding.parse, self.embedding or ())),
            clip_skip=self.clip_skip,
            negative=self.negative,
        )


_LOADING_OPTIONS = {
    "variant": Annotated[
        str | None, typer.Option(help="Variant of the model's files, such as fp16.")
    ],
    "config": Annotated[
        Path | None,
        typer.Option(
            help="For a single-file checkpoint: directory in diffusers' layout with its family's "
            "configs and tokenizer."
        ),
    ],
    "lora": Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:SCALE]",
            help="LoRA adapter to put into the weights; may be repeated.",
        ),
    ],
    "embedding": Annotated[
        list[str] | None,
        typer.Option(
            "--embedding", metavar="FILE[:TOKEN]", help="Textual inversion to add; may be repeated."
        ),
    ],
    "clip_skip": Annotated[
        int | None,
        typer.Option(help="Layers of the text encoder to leave out, as diffusers counts: from 0."),
    ],
    "negative": Annotated[
        str | None,
        typer.Option(help="Negative prompt that you always use.", show_default="the empty prompt"),
    ],
}
takes_loading = gathers("loading", _LOADING_OPTIONS, Loading)


def sides_of(latent_size: str) -> tuple[int, int]:
    """Height and width of --latent-size.

    Raises:
        InputError: it is not written so.
    """
    sides = latent_size.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise InputError(
            "--latent-size takes a number or HEIGHTxWIDTH, such as 48 or 64x48, not "
            f"{latent_size!r}."
        )
    return int(sides[0]), int(sides[-1])


def say_if_cut(negative: str | None, tokenizer: Tokenizer) -> None:
    """Tell the user that a negative prompt has an end that nothing reads."""
    if negative and tokenizer.encode([negative]).truncated[0]:
        say(
            f"only the first {tokenizer.cut_at} tokens of the negative prompt are read, as "
            "diffusers does."
        )

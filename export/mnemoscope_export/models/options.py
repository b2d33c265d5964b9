"""What is loaded beside a checkpoint, or in another way than its configs say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mnemoscope_runtime.errors import InputError

__all__ = ["Embedding", "LoadOptions", "Lora"]


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter (Hu et al. 2021): a safetensors file, and how much of it is added."""

    file: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "FILE" or "FILE:SCALE".

        Raises:
            InputError: the scale is no finite number.
        """
        file, colon, scale = text.rpartition(":")
        if not colon or text.endswith(".safetensors"):
            return cls(_safetensors(text, "A LoRA"))
        try:
            number = float(scale)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"The scale of a LoRA is a number, not {scale!r}. Write FILE.safetensors:0.8."
            )
        return cls(_safetensors(file, "A LoRA"), number)


@dataclass(frozen=True)
class Embedding:
    """A textual inversion (Gal et al. 2022): a safetensors file, and the word that stands for it.

    Attributes:
        file: In diffusers' format, or that of other tools ("emb_params"; "clip_l" and "clip_g").
        token: None is what the file says, or the name of a file that does not.
    """

    file: Path
    token: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "FILE" or "FILE:TOKEN"."""
        file, colon, token = text.rpartition(".safetensors:")
        if not colon:
            return cls(_safetensors(text, "An embedding"))
        if not token.strip():
            raise InputError(f"{text!r} names no token. Write FILE.safetensors:TOKEN, or FILE.")
        return cls(_safetensors(f"{file}.safetensors", "An embedding"), token)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        variant: Such as "fp16", of files named model.fp16.safetensors.
        config: For a single-file checkpoint: a directory in diffusers' layout with the configs and
            the tokenizer of its family; weights need not be there.
        latent_size: (H, W) of the latents, for a model whose config does not say, or to have
            others.
        loras: Put into the weights, one after another.
        embeddings: Added to tokenizers and text encoders.
        clip_skip: How many of the text encoder's last layers are left out, as diffusers counts
            (other tools count from one: their 2 is 1 here).
        negative: What the unconditional branch is told instead of the empty prompt.
    """

    variant: str | None = None
    config: Path | None = None
    latent_size: tuple[int, int] | None = None
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    clip_skip: int | None = None
    negative: str | None = None


def _safetensors(text: str, what: str) -> Path:
    path = Path(text)
    if path.suffix != ".safetensors":
        raise InputError(
            f"{what} is a safetensors file, which {text!r} is not: other formats can run code when "
            "they are read. Convert it with the library that wrote it."
        )
    return path

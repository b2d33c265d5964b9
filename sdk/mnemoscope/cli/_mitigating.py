"""What `mnemoscope mitigate` looks at before it draws, and what it notes of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime import InputError
from mnemoscope_runtime.errors import MnemoscopeError

from .. import embedded
from ..drawing.copy_detection import CopyDescriptor, LatentDescriptor, load_descriptor
from ..prompts.printable import counted
from ._comparison import LEARNT_ON

if TYPE_CHECKING:
    from PIL.Image import Image

    from mnemoscope_export import Model

    from ..mitigate import Kit, Painter

__all__ = [
    "AUTO",
    "TARGETED",
    "check_family",
    "descriptor_for",
    "is_cut",
    "on_what_is_usual",
    "references_of",
]

AUTO = "auto"
TARGETED = {AUTO, "embedding", "embedding-guidance", "noise", "leave-out", "leave-out-stepwise"}
"""Strategies that come down to a magnitude."""
_OF_FAMILIES = ("padding", "attention")


def check_family(kit: Kit, names: Sequence[str]) -> None:
    """Refuse a strategy that is not for the model's family, before anything is drawn.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if name in _OF_FAMILIES:
            kit.make(name).plan(kit.painter.task(["a cat"], [0], kit.sampling))


def descriptor_for(
    given: str | None, painter: Painter, *, own: bool, compare: bool
) -> tuple[CopyDescriptor, list[str]]:
    """What compares pictures: of another model what was given, SSCD, or at worst its own VAE.

    Returns:
        It, and what is to be noted of it.
    """
    if own:
        return load_descriptor(given), []
    if given is not None or compare:
        return load_descriptor(given or "sscd"), []
    try:
        return load_descriptor("sscd"), []
    except MnemoscopeError as error:
        note = f"pictures are compared by the model's VAE alone, which verifies none. {error}"
        return LatentDescriptor(painter.vae, painter.side), [note]


def on_what_is_usual(kit: Kit, chosen: Sequence[str]) -> list[str]:
    """What is to be noted where that is learnt from prompts, and these are random words or few."""
    learning = {AUTO, "stepwise", "stepwise-firm", "leave-out-stepwise", "clamp"}
    if kit.target is None and kit.yardstick.first is None:
        learning |= TARGETED
    if not learning & set(chosen) or len(kit.benign) >= LEARNT_ON:
        return []
    if kit.benign:
        few = counted(len(kit.benign), "prompt")
        return [f"what is benign is learnt from {few}; {LEARNT_ON} would be better."]
    return [
        "what is benign is learnt from prompts of random words. Give some that the model did "
        "not memorise, in the manner of yours: --benign FILE."
    ]


def is_cut(model: Model, prompt: str) -> bool:
    """Whether a prompt has more tokens than any text encoder of the model reads."""
    return all(
        len(tokenizer(model.written_out([prompt], tokenizer)[0]).input_ids)
        > int(tokenizer.model_max_length)
        for tokenizer, _ in model.tokenizers.values()
    )


def references_of(files: Sequence[Path], *, own: bool) -> list[Image]:
    """The pictures of these files; of the embedded model all that it memorised."""
    from PIL import Image, UnidentifiedImageError

    found = []
    for file in files:
        try:
            with Image.open(file) as image:
                found.append(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} is no picture: {error} Give a PNG or JPEG.") from None
    return [*found, *(embedded.memorized_pictures() if own else ())]

"""What `mnemoscope mitigate` looks at before it draws, and what it notes of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime import Bundle, InputError, tokenizer_of
from mnemoscope_runtime.errors import MnemoscopeError

from .. import embedded
from ..drawing.copy_detection import CopyDescriptor, LatentDescriptor, load_descriptor
from ..embedded import SHIPPED
from ..prompts.printable import counted
from ..shipped import model_at
from ._comparison import LEARNT_ON
from ._options import say

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
    "memorised_those",
    "on_what_is_usual",
    "references_of",
    "told_apart",
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


def told_apart(prompts: list[str], bundle: Bundle | None) -> list[str]:
    """Each prompt once, as a bundle's tokenizers tell them apart; without one, as they are."""
    if bundle is None:
        return prompts
    kept = tokenizer_of(bundle).distinct(prompts)
    if left_out := len(prompts) - len(kept):
        say(
            f"{counted(left_out, 'prompt')} left out, to the model the same as "
            f"{'another' if left_out == 1 else 'others'}."
        )
    return kept


def descriptor_for(
    given: str | None, painter: Painter, *, own: bool, compare: bool
) -> tuple[CopyDescriptor, list[str]]:
    """What compares pictures: of a model of the user's what was given, SSCD, or at worst its VAE.

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


def memorised_those(model: str | None) -> bool:
    """Whether a model is one that ships: its training pictures and a CLIP that knows them are here.

    Both learnt the same pictures, so that the stand-in for SSCD judges both.
    """
    return model_at(model) in (str(each.model) for each in SHIPPED.values())


def is_cut(model: Model, prompt: str) -> bool:
    """Whether a prompt has more tokens than any text encoder of the model reads."""
    return all(
        len(tokenizer(model.written_out([prompt], tokenizer)[0]).input_ids)
        > int(tokenizer.model_max_length)
        for tokenizer, _ in model.tokenizers.values()
    )


def references_of(files: Sequence[Path], *, own: bool) -> list[Image]:
    """The pictures of these files; of what ships all that it memorised."""
    from PIL import Image, UnidentifiedImageError

    found = []
    for file in files:
        try:
            with Image.open(file) as image:
                found.append(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} is no picture: {error} Give a PNG or JPEG.") from None
    return [*found, *(embedded.memorized_pictures() if own else ())]

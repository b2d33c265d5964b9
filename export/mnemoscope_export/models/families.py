"""The families, in a table: a new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..configs import is_xl
from .base import Model

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """One line.

    Attributes:
        model: Its class, as "MODULE:CLASS"; the module beside this file begins with a dot.
        matches: Whether a `model_index.json` is that of one of its pipelines.
    """

    model: str
    matches: Callable[[Mapping[str, Any]], bool]


def _named(prefix: str) -> Callable[[Mapping[str, Any]], bool]:
    """Pipelines whose class is named so."""
    return lambda index: str(index.get("_class_name")).startswith(prefix)


# the first that matches; the last says of what no other takes what is in the way
FAMILIES: Mapping[str, Family] = {
    "stable-diffusion-3": Family(".sd3:StableDiffusion3", _named("StableDiffusion3")),
    "pixart-sigma": Family(".pixart:PixArtSigma", _named("PixArtSigma")),
    "qwen-image": Family(".qwen_image:QwenImage", _named("QwenImage")),
    "sana": Family(".sana:Sana", _named("Sana")),
    "flux": Family(".flux:Flux", _named("Flux")),
    "stable-diffusion-xl": Family(".sdxl:StableDiffusionXL", is_xl),
    "stable-diffusion": Family(".stable_diffusion:StableDiffusion", lambda _: True),
}


def family_of(index: Mapping[str, Any]) -> tuple[str, type[Model]]:
    """Name and class of the family that a `model_index.json` belongs to."""
    name, family = next(each for each in FAMILIES.items() if each[1].matches(index))
    module, _, kind = family.model.partition(":")
    found: type[Model] = getattr(import_module(module, __package__), kind)
    return name, found

"""Families of models: what their users call them, and what can be advised of their bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FAMILIES", "Family", "family_named"]


@dataclass(frozen=True)
class Family:
    """What messages know of a family.

    Attributes:
        name: As its users know it.
        any_length: Its network may be told of more tokens than its tokenizers make, so that models
            can be exported with --any-length.
        unet: Its network may be a UNet, whose cross-attention can be looked at.
        distilled: Guidance was distilled into its network, which predicts once at every step.
    """

    name: str
    any_length: bool = False
    unet: bool = False
    distilled: bool = False


FAMILIES: Mapping[str, Family] = {
    "sd1": Family("Stable Diffusion 1.x", any_length=True, unet=True),
    "sd2": Family("Stable Diffusion 2.x", any_length=True, unet=True),
    "sdxl": Family("Stable Diffusion XL", any_length=True, unet=True),
    "sd3": Family("Stable Diffusion 3"),
    "flux-dev": Family("FLUX.1 dev", distilled=True),
    "flux-schnell": Family("FLUX.1 schnell", distilled=True),
    "pixart-sigma": Family("PixArt-Sigma"),
    "qwen-image": Family("Qwen-Image"),
    "sana": Family("Sana"),
}
"""By what manifests call them."""


def family_named(family: str) -> Family:
    """What is known of a family by its name in manifests; of a user's own what is so by default."""
    return FAMILIES.get(family) or Family(family, any_length=True, unet=True)

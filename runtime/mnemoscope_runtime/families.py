"""Families of models: their names, how they draw, and what can be advised of their bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FAMILIES", "Family", "family_named"]


@dataclass(frozen=True)
class Family:
    """What is known of a family by its name.

    Attributes:
        name: As its users know it.
        any_length: Its network may be told of more tokens than its tokenizers make, so that models
            can be exported with --any-length.
        unet: Its network may be a UNet, whose cross-attention can be looked at.
        distilled: Guidance was distilled into its network, which predicts once at every step.
        steps: With how many diffusers' pipeline draws unless told otherwise; of FLUX.1 schnell
            those of its model card, since that pipeline is dev's too.
        guidance: Likewise; of a distilled one what the network is told, or 0 if it is told none.
    """

    name: str
    any_length: bool = False
    unet: bool = False
    distilled: bool = False
    steps: int = 50
    guidance: float = 7.5


FAMILIES: Mapping[str, Family] = {
    "sd1": Family("Stable Diffusion 1.x", any_length=True, unet=True),
    "sd2": Family("Stable Diffusion 2.x", any_length=True, unet=True),
    "sdxl": Family("Stable Diffusion XL", any_length=True, unet=True, guidance=5.0),
    "sd3": Family("Stable Diffusion 3", steps=28, guidance=7.0),
    "flux-dev": Family("FLUX.1 dev", distilled=True, steps=28, guidance=3.5),
    "flux-schnell": Family("FLUX.1 schnell", distilled=True, steps=4, guidance=0.0),
    "pixart-sigma": Family("PixArt-Sigma", steps=20, guidance=4.5),
    "qwen-image": Family("Qwen-Image", guidance=4.0),
    "sana": Family("Sana", steps=20, guidance=4.5),
}
"""By what manifests call them."""


def family_named(family: str) -> Family:
    """What is known of a family by its name in manifests; of a user's own what is so by default."""
    return FAMILIES.get(family) or Family(family, any_length=True, unet=True)

"""Torch models by family."""

from .sdxl import StableDiffusionXL
from .stable_diffusion import Embeds, StableDiffusion

__all__ = ["Embeds", "StableDiffusion", "StableDiffusionXL"]

"""Torch models by family."""

from .checkpoint import load_network
from .loading import load_vae
from .sdxl import StableDiffusionXL
from .stable_diffusion import Embeds, StableDiffusion

__all__ = ["Embeds", "StableDiffusion", "StableDiffusionXL", "load_network", "load_vae"]

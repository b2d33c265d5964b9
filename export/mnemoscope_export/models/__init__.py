"""Torch models by family."""

from .base import Embeds, Model
from .checkpoint import load_network
from .loading import check_export, load_model, load_vae
from .sdxl import StableDiffusionXL
from .stable_diffusion import StableDiffusion

__all__ = [
    "Embeds",
    "Model",
    "StableDiffusion",
    "StableDiffusionXL",
    "check_export",
    "load_model",
    "load_network",
    "load_vae",
]

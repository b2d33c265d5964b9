"""Torch models by family, their graphs, and the gate they pass before they become a bundle."""

from .export import ExportOptions, check_oracle, check_target, export_bundle
from .models import Embeds, StableDiffusion, StableDiffusionXL
from .noise import noise_bank
from .parity import Tolerance
from .reference import Step, denoise, magnitude, magnitudes
from .torch_backend import TorchBackend

__all__ = [
    "Embeds",
    "ExportOptions",
    "StableDiffusion",
    "StableDiffusionXL",
    "Step",
    "Tolerance",
    "TorchBackend",
    "check_oracle",
    "check_target",
    "denoise",
    "export_bundle",
    "magnitude",
    "magnitudes",
    "noise_bank",
]

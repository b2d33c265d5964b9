"""Models by family, their graphs, and the gate they pass before they become a bundle.

What needs PyTorch is loaded when it is first asked for: `export_onnx` works without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exporting import export_bundle, export_onnx
    from .models import (
        Embeds,
        Model,
        StableDiffusion,
        StableDiffusionXL,
        check_export,
        load_model,
        load_network,
        load_vae,
    )
    from .models.options import Embedding, LoadOptions, Lora
    from .noise import noise_bank
    from .options import ExportOptions
    from .oracle import Tolerance
    from .torch.backend import TorchBackend
    from .torch.reference import Step, denoise, magnitude, magnitudes
    from .torch.study.attention import AttentionMaps
    from .torch.study.attribution import token_gradients
    from .torch.study.gradients import magnitude_of, unconditional
    from .torch.study.jacobian import along_itself

__all__ = [
    "AttentionMaps",
    "Embedding",
    "Embeds",
    "ExportOptions",
    "LoadOptions",
    "Lora",
    "Model",
    "StableDiffusion",
    "StableDiffusionXL",
    "Step",
    "Tolerance",
    "TorchBackend",
    "along_itself",
    "check_export",
    "denoise",
    "export_bundle",
    "export_onnx",
    "load_model",
    "load_network",
    "load_vae",
    "magnitude",
    "magnitude_of",
    "magnitudes",
    "noise_bank",
    "token_gradients",
    "unconditional",
]

_HOMES = {
    "AttentionMaps": "torch.study.attention",
    "Embedding": "models.options",
    "Embeds": "models",
    "ExportOptions": "options",
    "LoadOptions": "models.options",
    "Lora": "models.options",
    "Model": "models",
    "StableDiffusion": "models",
    "StableDiffusionXL": "models",
    "Step": "torch.reference",
    "Tolerance": "oracle",
    "TorchBackend": "torch.backend",
    "along_itself": "torch.study.jacobian",
    "check_export": "models",
    "denoise": "torch.reference",
    "export_bundle": "exporting",
    "export_onnx": "exporting",
    "load_model": "models",
    "load_network": "models",
    "load_vae": "models",
    "magnitude": "torch.reference",
    "magnitude_of": "torch.study.gradients",
    "magnitudes": "torch.reference",
    "noise_bank": "noise",
    "token_gradients": "torch.study.attribution",
    "unconditional": "torch.study.gradients",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)

"""Models by family, their graphs, and the gate they pass before they become a bundle.

What needs PyTorch is loaded when it is first asked for: `export_onnx` works without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attention import AttentionMaps
    from .attribution import token_gradients
    from .export import export_bundle
    from .from_onnx import export_onnx
    from .gate import Tolerance, check_backend
    from .gradients import magnitude_of, unconditional
    from .jacobian import along_itself
    from .models import Embeds, StableDiffusion, StableDiffusionXL, load_network, load_vae
    from .models.options import Embedding, LoadOptions, Lora
    from .noise import noise_bank
    from .reference import Step, denoise, magnitude, magnitudes
    from .staging import ExportOptions, check_target
    from .torch_backend import TorchBackend

__all__ = [
    "AttentionMaps",
    "Embedding",
    "Embeds",
    "ExportOptions",
    "LoadOptions",
    "Lora",
    "StableDiffusion",
    "StableDiffusionXL",
    "Step",
    "Tolerance",
    "TorchBackend",
    "along_itself",
    "check_backend",
    "check_target",
    "denoise",
    "export_bundle",
    "export_onnx",
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
    "AttentionMaps": "attention",
    "Embedding": "models.options",
    "Embeds": "models",
    "ExportOptions": "staging",
    "LoadOptions": "models.options",
    "Lora": "models.options",
    "StableDiffusion": "models",
    "StableDiffusionXL": "models",
    "Step": "reference",
    "Tolerance": "gate",
    "TorchBackend": "torch_backend",
    "along_itself": "jacobian",
    "check_backend": "gate",
    "check_target": "staging",
    "denoise": "reference",
    "export_bundle": "export",
    "export_onnx": "from_onnx",
    "load_network": "models",
    "load_vae": "models",
    "magnitude": "reference",
    "magnitude_of": "gradients",
    "magnitudes": "reference",
    "noise_bank": "noise",
    "token_gradients": "attribution",
    "unconditional": "gradients",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)

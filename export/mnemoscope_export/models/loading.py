"""Models from directories in diffusers' layout, or from the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub.constants import HF_HUB_OFFLINE
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError

from .sdxl import StableDiffusionXL
from .stable_diffusion import StableDiffusion

__all__ = ["load"]

_OFFLINE = "HF_HUB_OFFLINE is set and it has not been downloaded before. "
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def load(name: str, dtype: torch.dtype, device: str) -> StableDiffusion:
    """See `StableDiffusion.load`."""
    if Path(name).exists() and not (Path(name) / "model_index.json").is_file():
        raise ExportError(
            f"{name} has no model_index.json, so it is not a diffusers pipeline. "
            "Save it with `pipeline.save_pretrained(DIR)`."
        )
    if not Path(name).exists() and not _HUB_ID.fullmatch(name):
        raise ExportError(
            f"{name} is no directory, and no hub id (OWNER/NAME) either. Give a directory in "
            "diffusers' Stable Diffusion layout, or a hub id."
        )

    def network(kind: Any, part: str, **options: Any) -> Any:
        found: nn.Module = kind.from_pretrained(
            name, subfolder=part, use_safetensors=True, **options
        )
        return found.to(device).eval().requires_grad_(False)

    try:
        index = DiffusionPipeline.load_config(name)
        common: dict[str, Any] = {
            "id": Path(name).resolve().name if Path(name).exists() else name,
            "tokenizer": CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
            "text_encoder": network(CLIPTextModel, "text_encoder", dtype=dtype),
            "unet": network(UNet2DConditionModel, "unet", torch_dtype=dtype),
            "scheduler": DDIMScheduler.from_pretrained(name, subfolder="scheduler"),
        }
        if "text_encoder_2" not in index:
            return StableDiffusion(**common)
        return StableDiffusionXL(
            **common,
            tokenizer_2=CLIPTokenizer.from_pretrained(name, subfolder="tokenizer_2"),
            text_encoder_2=network(CLIPTextModelWithProjection, "text_encoder_2", dtype=dtype),
            force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        )
    except (OSError, ValueError) as error:
        offline = "" if Path(name).exists() or not HF_HUB_OFFLINE else _OFFLINE
        raise ExportError(
            f"{name} cannot be loaded: {offline}{error} Give a directory in diffusers' Stable "
            "Diffusion layout with safetensors weights, or a hub id you have access to."
        ) from error

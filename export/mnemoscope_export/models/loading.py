"""Models from directories in diffusers' layout, or from the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub.constants import HF_HUB_OFFLINE
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError

from ..configs import check_configs, is_xl
from ..records import check_latent_size
from .checkpoint import load_network
from .config_files import read_configs
from .sdxl import StableDiffusionXL
from .stable_diffusion import StableDiffusion

__all__ = ["load", "load_vae", "local_folder"]

_OFFLINE = "HF_HUB_OFFLINE is set and it has not been downloaded before. "
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_NEXT = (
    "Give a directory in diffusers' Stable Diffusion layout with safetensors weights, or a hub id "
    "you have access to."
)


def load(
    name: str, dtype: torch.dtype, device: str, latent_size: tuple[int, int] | None
) -> StableDiffusion:
    """See `StableDiffusion.load`."""
    folder = local_folder(name)
    configs = read_configs(folder)
    check_configs(configs, name, is_resized=latent_size is not None)
    if latent_size is not None:
        check_latent_size(configs["unet"], name, latent_size)
    index = configs["model_index"]
    xl = is_xl(index)

    def network(kind: Any, part: str) -> Any:
        return load_network(kind, folder / part, dtype=dtype).to(device).requires_grad_(False)

    def tokenizer(part: str, encoder: Mapping[str, Any]) -> CLIPTokenizer:
        found = CLIPTokenizer.from_pretrained(folder, subfolder=part)
        # a config that does not say how many tokens are read leaves it to the text encoder
        longest = int(encoder.get("max_position_embeddings", 77))
        found.model_max_length = min(found.model_max_length, longest)
        return found

    try:
        common: dict[str, Any] = {
            "id": Path(name).resolve().name if Path(name).exists() else name,
            "latent_size": latent_size,
            "tokenizer": tokenizer("tokenizer", configs["text_encoder"]),
            "text_encoder": network(CLIPTextModel, "text_encoder"),
            "unet": network(UNet2DConditionModel, "unet"),
            # diffusers' pipeline of 1.x and 2.x sets the offset to 1, whatever is there
            "scheduler": DDIMScheduler.from_pretrained(
                folder, subfolder="scheduler", **({} if xl else {"steps_offset": 1})
            ),
        }
        if not xl:
            return StableDiffusion(**common)
        return StableDiffusionXL(
            **common,
            tokenizer_2=tokenizer("tokenizer_2", configs["text_encoder_2"]),
            text_encoder_2=network(CLIPTextModelWithProjection, "text_encoder_2"),
            force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
            pixels=2 ** (len(configs.get("vae", {}).get("block_out_channels", "1234")) - 1),
        )
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be loaded: {error} {_NEXT}") from error


def load_vae(name: str | Path) -> AutoencoderKL:
    """The VAE of a model, in float32.

    Args:
        name: Directory in diffusers' layout, or hub id.

    Raises:
        ExportError: there is no such model, or its VAE is missing or not what its files hold.
    """
    folder = local_folder(str(name)) / "vae"
    if not folder.is_dir():
        raise ExportError(
            f"{name} cannot draw: it has no VAE. Save the whole pipeline with "
            "`pipeline.save_pretrained(DIR)`."
        )
    return load_network(AutoencoderKL, folder, dtype=torch.float32).requires_grad_(False)


def local_folder(name: str) -> Path:
    """The directory of a model; one of the hub is downloaded, if it has not been before.

    Raises:
        ExportError: there is no such model, or it is no pipeline of diffusers.
    """
    folder = Path(name)
    if not folder.exists():
        if not _HUB_ID.fullmatch(name):
            raise ExportError(
                f"{name} is no directory, and no hub id (OWNER/NAME) either. Give a directory in "
                "diffusers' Stable Diffusion layout, or a hub id."
            )
        unused = {"safety_checker": None, "feature_extractor": None}
        try:
            folder = Path(DiffusionPipeline.download(name, use_safetensors=True, **unused))
        except (OSError, ValueError) as error:
            offline = _OFFLINE if HF_HUB_OFFLINE else ""
            raise ExportError(f"{name} cannot be loaded: {offline}{error} {_NEXT}") from error
    if not (folder / "model_index.json").is_file():
        raise ExportError(
            f"{name} has no model_index.json, so it is not a diffusers pipeline. "
            "Save it with `pipeline.save_pretrained(DIR)`."
        )
    return folder

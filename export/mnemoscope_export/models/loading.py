"""Models from directories in diffusers' layout, or from the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub.constants import HF_HUB_OFFLINE
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.manifest import AdapterRecord

from ..configs import check_configs, check_vae, inpaints, is_xl, sample_size
from ..records import check_clip_skip, check_latent_size, check_vocabulary
from .adapters import add_embeddings, fuse_loras, pipeline_of
from .checkpoint import load_network
from .config_files import read_configs
from .contents import lfs_pointer
from .masked import mask_all
from .messages import first_line
from .options import LoadOptions
from .sdxl import StableDiffusionXL
from .single_file import configs_for, load_single_file, load_single_vae
from .stable_diffusion import StableDiffusion

__all__ = ["load", "load_vae", "local_folder"]

_OFFLINE = "HF_HUB_OFFLINE is set and it has not been downloaded before. "
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_NEXT = (
    "Give a directory in diffusers' Stable Diffusion layout with safetensors weights, or a hub id "
    "you have access to."
)


def load(name: str, dtype: torch.dtype, device: str, options: LoadOptions) -> StableDiffusion:
    """See `StableDiffusion.load`."""
    file = Path(name) if Path(name).is_file() else None
    if file is None and options.config is not None:
        raise InputError(
            f"A directory of configs goes with a single-file checkpoint, which {name} is not. "
            "Leave it out."
        )
    folder = (
        local_folder(name, options.variant) if file is None else configs_for(file, options.config)
    )
    configs = read_configs(folder)
    size = options.latent_size
    check_configs(configs, str(folder) if file else name, is_resized=size is not None)
    if size is not None:
        check_latent_size(configs["unet"], name, size)
    check_clip_skip(configs, options.clip_skip)
    index = configs["model_index"]
    xl = is_xl(index)
    parts = _tokenizers(folder, configs)
    # diffusers' pipeline of 1.x and 2.x sets the offset to 1, whatever is there
    offset = {} if xl else {"steps_offset": 1}
    try:
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", **offset)
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be loaded: {error} {_NEXT}") from error
    parts |= {"scheduler": scheduler}
    if file is None:
        parts |= _networks(name, folder, dtype, options.variant, xl=xl)
    else:
        parts |= load_single_file(file, folder, dtype, options.variant, xl=xl)
    adapters: tuple[AdapterRecord, ...] = ()
    if options.embeddings or options.loras:
        pipeline = pipeline_of(parts)
        adapters = add_embeddings(pipeline, options.embeddings)
        adapters += fuse_loras(pipeline, options.loras)
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.to(device).eval().requires_grad_(False)
    masked = None
    if inpaints(configs["unet"]):
        masked = mask_all(load_vae(name, options), size or sample_size(configs["unet"]))
    common: dict[str, Any] = {
        **parts,
        "id": Path(name).resolve().name if Path(name).exists() else name,
        "latent_size": size,
        "variant": options.variant,
        "adapters": adapters,
        "clip_skip": options.clip_skip,
        "negative": options.negative,
        "source": (name, options),
        "masked": masked,
    }
    if not xl:
        return StableDiffusion(**common)
    return StableDiffusionXL(
        **common,
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        pixels=2 ** (len(configs.get("vae", {}).get("block_out_channels", "1234")) - 1),
    )


def _tokenizers(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for suffix in ("", "_2") if "text_encoder_2" in configs else ("",):
        where = folder / f"tokenizer{suffix}"
        layouts = (("tokenizer.json",), ("vocab.json", "merges.txt"))
        if not any(all(_holds(where / name) for name in layout) for layout in layouts):
            raise ExportError(  # transformers would make up one of two tokens
                f"{where} has neither vocab.json and merges.txt nor tokenizer.json, so there is no "
                "tokenizer. Copy it from the model, or save the pipeline again with "
                "`pipeline.save_pretrained(DIR)`."
            )
        for each in {name for layout in layouts for name in layout}:
            lfs_pointer(where / each)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=f"tokenizer{suffix}")
        except Exception as error:  # of its files' contents: those errors share no base class
            raise ExportError(
                f"The files of {where} are no tokenizer's: {type(error).__name__}, "
                f"{first_line(error)} Copy them again."
            ) from error
        # a config that does not say how many tokens are read leaves it to the text encoder
        config = configs[f"text_encoder{suffix}"]
        ends = tokenizer.bos_token_id, tokenizer.eos_token_id
        check_vocabulary(len(tokenizer), ends, config, str(where))
        longest = int(config.get("max_position_embeddings", 77))
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
        found[f"tokenizer{suffix}"] = tokenizer
    return found


def _holds(file: Path) -> bool:
    """Whether a file is there with anything in it: without merges words fall into letters."""
    return file.is_file() and file.stat().st_size > 0


def _networks(
    name: str, folder: Path, dtype: torch.dtype, variant: str | None, *, xl: bool
) -> dict[str, Any]:
    kinds: dict[str, Any] = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}
    if xl:
        kinds["text_encoder_2"] = CLIPTextModelWithProjection
    if variant is not None and not list(folder.glob(f"*/*.{variant}.*")):
        others = {path.name.split(".")[1] for path in folder.glob("*/*.*.safetensors")}
        there = f"; there is {', '.join(sorted(others))}" if others else ""
        raise ExportError(
            f"{name} has no files of the variant {variant!r}{there}. Leave it out, or give another."
        )
    return {
        part: load_network(kind, folder / part, dtype=dtype, variant=variant)
        for part, kind in kinds.items()
    }


def load_vae(name: str | Path, options: LoadOptions | None = None) -> AutoencoderKL:
    """The VAE of a model, in float32.

    Args:
        name: Directory in diffusers' layout, single file, or hub id.
        options: Those that the model was loaded with.

    Raises:
        ExportError: there is no such model, or its VAE is missing or not what its files hold.
    """
    options = options or LoadOptions()
    if Path(name).is_file():
        config = configs_for(Path(name), options.config)
        check_vae(read_configs(config).get("vae", {}), str(name))
        return load_single_vae(Path(name), config)
    whole = local_folder(str(name), options.variant)
    check_vae(read_configs(whole).get("vae", {}), str(name))
    folder = whole / "vae"
    if not folder.is_dir():
        raise ExportError(
            f"{name} cannot draw: it has no VAE. Save the whole pipeline with "
            "`pipeline.save_pretrained(DIR)`."
        )
    vae = load_network(AutoencoderKL, folder, dtype=torch.float32, variant=options.variant)
    return vae.requires_grad_(False)


def local_folder(name: str, variant: str | None = None) -> Path:
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
            folder = Path(
                DiffusionPipeline.download(name, use_safetensors=True, variant=variant, **unused)
            )
        except (OSError, ValueError) as error:
            offline = _OFFLINE if HF_HUB_OFFLINE else ""
            raise ExportError(f"{name} cannot be loaded: {offline}{error} {_NEXT}") from error
    if not (folder / "model_index.json").is_file():
        raise ExportError(
            f"{name} has no model_index.json, so it is not a diffusers pipeline. "
            "Save it with `pipeline.save_pretrained(DIR)`."
        )
    return folder

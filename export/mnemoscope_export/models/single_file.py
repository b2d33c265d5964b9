"""Single-file checkpoints: all networks in one safetensors file, under the names of their authors.

diffusers converts the names. What it makes of a file is compared with the file, by content: every
weight of a network is one of the file's, and every one that belongs to these networks is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.wording import counted

from .base import Model
from .contents import content, tensors
from .messages import first_line, shown

__all__ = ["configs_for", "load_single_file", "load_single_vae"]

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_TEXT = ("cond_stage_model.", "conditioner.")
# a text encoder's, and of no use to a pipeline
_UNUSED = re.compile(r"position_ids$|logit_scale$|text_projection(\.weight)?$")
_LAYER = re.compile(r"resblocks\.(\d+)\.")  # Stable Diffusion 2 leaves out the last
_HARMLESS = re.compile(r"(^|\.)position_ids$")


def configs_for(file: Path, config: Path | None) -> Path:
    """The directory of configs that goes with a checkpoint.

    Raises:
        InputError: none is given, or the file is no safetensors.
        ExportError: it is no directory in diffusers' layout.
    """
    if file.suffix != ".safetensors":
        raise InputError(
            f"{file} is no safetensors file: other formats can run code when they are read. "
            "Convert it first."
        )
    if config is None:
        raise InputError(
            f"{file} holds weights alone, neither configs nor a tokenizer. Name a directory in "
            "diffusers' layout that has those of its family (--config DIR); it may be any model of "
            "the same architecture, and weights need not be there."
        )
    if not (config / "model_index.json").is_file():
        raise ExportError(
            f"{config} has no model_index.json, so it holds no configs of a pipeline. Name a "
            "directory in diffusers' layout."
        )
    return config


def load_single_file(
    file: Path, config: Path, dtype: torch.dtype, variant: str | None, model: type[Model]
) -> dict[str, nn.Module]:
    """The networks of a checkpoint, by the names of a pipeline's parts.

    Args:
        file: The checkpoint.
        config: Directory of configs; see `configs_for`.
        dtype: Of the weights.
        variant: Must be None: a file has none.
        model: The family that the configs are of.

    Raises:
        ExportError: the file is not what the configs describe.
        InputError: a variant is asked for.
    """
    if variant is not None:
        raise InputError(f"{file} is one file, and has no variant {variant!r}. Leave it out.")
    unused: dict[str, Any] = dict.fromkeys(("vae", *model.unused))
    held = _held(file, dtype, _UNET, *_TEXT)  # before diffusers: does the file hold a model at all?
    try:
        pipeline = model.pipeline_class.from_single_file(
            str(file), config=str(config), torch_dtype=dtype, local_files_only=True, **unused
        )
    except Exception as error:  # diffusers' errors share no base class
        raise ExportError(
            f"{file} cannot be loaded with the configs of {config}: {first_line(error)} Give a "
            "checkpoint of Stable Diffusion 1.x, 2.x or XL, and configs of the same."
        ) from None
    parts = {name: getattr(pipeline, name) for name in model.networks}
    _check(file, config, parts, held, int(pipeline.text_encoder.config.num_hidden_layers))
    return parts


def load_single_vae(file: Path, config: Path) -> AutoencoderKL:
    """The VAE of a checkpoint, in float32.

    Raises:
        ExportError: the file has none, or another than the configs describe.
    """
    held = _held(file, torch.float32, _VAE)
    try:
        vae = AutoencoderKL.from_single_file(
            str(file), config=str(config), subfolder="vae", torch_dtype=torch.float32,
            local_files_only=True,
        )  # fmt: skip
    except Exception as error:  # diffusers' errors share no base class
        raise ExportError(
            f"The VAE of {file} cannot be loaded with the configs of {config}: {first_line(error)} "
            "Give the configs of its own family."
        ) from None
    _check(file, config, {"vae": vae}, held)
    return vae.eval().requires_grad_(False)


def _held(file: Path, dtype: torch.dtype, first: str, *others: str) -> dict[str, list[Tensor]]:
    """What every weight with these prefixes can become, by its key."""
    found = {
        key: list(_forms(key, tensor))
        for key, tensor in tensors(file, dtype)
        if key.startswith((first, *others))
    }
    if not any(key.startswith(first) for key in found):
        raise ExportError(
            f"{file} has no {first}*, so it is not a whole checkpoint of Stable Diffusion. A LoRA "
            "goes with --lora, an embedding with --embedding."
        )
    return found


def _forms(key: str, tensor: Tensor) -> Iterator[Tensor]:
    """As it is; OpenCLIP joins queries, keys and values, and transposes a projection."""
    yield tensor
    if "in_proj_" in key:
        yield from tensor.chunk(3)
    if key.endswith("text_projection"):
        yield tensor.T


def _check(
    file: Path,
    config: Path,
    parts: dict[str, nn.Module],
    held: dict[str, list[Tensor]],
    layers: int = 0,  # of the first text encoder
) -> None:
    forms: dict[str, set[str]] = {}
    dtype = next(next(iter(parts.values())).parameters()).dtype
    for key, tensors_ in held.items():
        forms[key] = {content(each, dtype) for each in tensors_}
    known = set().union(*forms.values())
    used: set[str] = set()
    invented = []
    for part, network in parts.items():
        for name, weight in network.state_dict().items():
            if _HARMLESS.search(name):
                continue
            value = content(weight, dtype)
            used.add(value)
            if value not in known:
                invented.append(f"{part}.{name}")
    left = [
        key
        for key, each in forms.items()
        if not each & used
        and not (key.startswith(_TEXT) and _UNUSED.search(key))
        and not (key.startswith(_TEXT[0]) and _layer(key) >= layers)
    ]
    problems = [
        f"{counted(len(keys), 'weight')} {what} ({shown(keys)})"
        for what, keys in (("not in the file", invented), ("of the file not used", left))
        if keys
    ]
    if problems:
        raise ExportError(
            f"{file} does not hold the model that the configs of {config} describe: "
            f"{'; '.join(problems)}. Give the configs of its own family."
        )


def _layer(key: str) -> int:
    found = _LAYER.search(key)
    return int(found[1]) if found else -1

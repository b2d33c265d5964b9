"""Single-file checkpoints of tiny models: the names that their authors gave to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_STEM = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def write_single_file(pipeline: Any, path: Path, *, half: bool = False) -> None:
    """All weights of a pipeline in one file."""
    held = {
        **_prefixed("model.diffusion_model.", _unet(pipeline.unet)),
        **_prefixed("first_stage_model.", _vae(pipeline.vae)),
        "alphas_cumprod": pipeline.scheduler.alphas_cumprod,
    }
    text = pipeline.text_encoder.state_dict()
    text = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in text.items()}
    if "text_encoder_2" in pipeline.components:
        held |= _prefixed("conditioner.embedders.0.transformer.", text)
        held |= _prefixed("conditioner.embedders.1.model.", _open_clip(pipeline.text_encoder_2))
    else:
        held |= _prefixed("cond_stage_model.transformer.", text)
    dtype = torch.float16 if half else torch.float32
    save_file(
        {k: (v.to(dtype) if v.is_floating_point() else v).contiguous() for k, v in held.items()},
        path,
    )


def _prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value.clone() for key, value in state.items()}


def _unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    layers = int(unet.config.layers_per_block)
    found = {}
    for key, value in unet.state_dict().items():
        stem, kind = key.rsplit(".", 1)
        if stem in _STEM:
            found[f"{_STEM[stem]}.{kind}"] = value
            continue
        block, index, *rest = key.split(".")
        if block == "mid_block":
            part, place = (index, rest[0]) if index else ("", "")
            number = 1 if part == "attentions" else 2 * int(place)
            found[f"middle_block.{number}.{_inside(part, rest[1:])}"] = value
            continue
        level, (part, place, *inner) = int(index), rest
        down = block == "down_blocks"
        first = level * (layers + 1) + down
        name = "input_blocks" if down else "output_blocks"
        if part in ("resnets", "attentions"):
            child = int(part == "attentions")
            found[f"{name}.{first + int(place)}.{child}.{_inside(part, inner)}"] = value
        elif part == "downsamplers":
            found[f"{name}.{first + layers}.0.op.{inner[-1]}"] = value
        else:
            child = 1 + bool(getattr(unet.up_blocks[level], "has_cross_attention", False))
            found[f"{name}.{first + layers}.{child}.conv.{inner[-1]}"] = value
    return found


def _inside(part: str, names: list[str]) -> str:
    if part == "attentions":
        return ".".join(names)
    return ".".join([_RESNET[names[0]], *names[1:]])


def _vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    levels = len(vae.config.down_block_types)
    names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    found = {}
    for key, value in vae.state_dict().items():
        new = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        for i in range(levels):
            new = new.replace(f"down_blocks.{i}.resnets", f"down.{i}.block")
            new = new.replace(f"down_blocks.{i}.downsamplers.0", f"down.{i}.downsample")
            new = new.replace(f"up_blocks.{i}.resnets", f"up.{levels - 1 - i}.block")
            new = new.replace(f"up_blocks.{i}.upsamplers.0", f"up.{levels - 1 - i}.upsample")
        for i in range(2):
            new = new.replace(f"mid_block.resnets.{i}", f"mid.block_{i + 1}")
        if "mid_block.attentions.0" in new:
            for old, short in names.items():
                new = new.replace(f"attentions.0.{old}", f"attentions.0.{short}")
            new = new.replace("mid_block.attentions.0", "mid.attn_1")
            value = value[..., None, None] if value.ndim == 2 else value
        found[new] = value
    return found


def _open_clip(encoder: Any) -> dict[str, Tensor]:
    state = {k.removeprefix("text_model."): v for k, v in encoder.state_dict().items()}
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.tensor(1.0),
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
             "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for i in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            three = [state[f"{ours}.self_attn.{n}_proj.{kind}"] for n in "qkv"]
            found[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(three)
            for old, new in names.items():
                found[f"{theirs}.{new}.{kind}"] = state[f"{ours}.{old}.{kind}"]
    return found

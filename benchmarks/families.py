"""Stable Diffusion's architectures, from the configs their authors published, random weights.

Latency, memory and parity do not depend on the weights; what a model memorised does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion, StableDiffusionXL
from mnemoscope_runtime.manifest import PredictionType

_VOCABULARY = 49_408


@dataclass(frozen=True)
class Family:
    """What tells a family from Stable Diffusion 1."""

    text: dict[str, Any]
    unet: dict[str, Any] = field(default_factory=dict)
    prediction: PredictionType = "epsilon"
    text_2: dict[str, Any] | None = None


_VIT_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_VIT_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_VIT_BIGG = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_SD2 = {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_TOY = {
    "sample_size": 8,
    "block_out_channels": (32,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 32,
}
_TOY_XL = {
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}
FAMILIES = {
    "sd14": Family(_VIT_L),  # 1.4 and 1.5 have one architecture
    "sd21-base": Family(_VIT_H, _SD2),
    "sd21": Family(_VIT_H, {**_SD2, "sample_size": 96}, "v_prediction"),
    "sdxl": Family(_VIT_L, _SDXL, text_2=_VIT_BIGG),
}
TOYS = {  # they only show whether something runs
    "toy": Family(_TINY, _TOY),
    "toy-xl": Family(_TINY, {**_TOY, **_TOY_XL}, text_2={**_TINY, "projection_dim": 32}),
}


def random_model(name: str, seed: int = 0) -> StableDiffusion:
    """A model of that family; its tokenizer is the embedded model's, its vocabulary CLIP's size."""
    family = (FAMILIES | TOYS)[name]
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")

    def text_config(fields: dict[str, Any]) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=_VOCABULARY,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **fields,
        )

    unet = {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        **family.unet,
    }
    parts: dict[str, Any] = {
        "id": f"{name}-random",
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(text_config(family.text)),
        "unet": UNet2DConditionModel(**unet),
    }
    with torch.device("cpu"):  # it has values, also where networks are on the meta device
        parts["scheduler"] = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=family.prediction,
        )
    if family.text_2 is None:
        model = StableDiffusion(**parts)
    else:
        model = StableDiffusionXL(
            **parts,
            tokenizer_2=CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer", pad_token="!"),
            text_encoder_2=CLIPTextModelWithProjection(text_config(family.text_2)),
        )
    for part in model.parts.values():
        part.eval().requires_grad_(False)
    return model

"""Stable Diffusion's architectures, from the configs their authors published, random weights.

Latency, memory and parity do not depend on the weights; what a model memorised does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion

_VOCABULARY = 49_408


@dataclass(frozen=True)
class Family:
    """What tells a family from Stable Diffusion 1."""

    text: dict[str, Any]
    unet: dict[str, Any] = field(default_factory=dict)
    prediction: str = "epsilon"


_VIT_L = {"hidden_size": 768, "intermediate_size": 3072, "layers": 12, "heads": 12}
_VIT_H = {"hidden_size": 1024, "intermediate_size": 4096, "layers": 23, "heads": 16}
_SD2 = {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
FAMILIES = {
    "sd14": Family(_VIT_L),  # 1.4 and 1.5 have one architecture
    "sd21-base": Family({**_VIT_H, "hidden_act": "gelu"}, _SD2),
    "sd21": Family({**_VIT_H, "hidden_act": "gelu"}, {**_SD2, "sample_size": 96}, "v_prediction"),
}


def random_model(name: str, seed: int = 0) -> StableDiffusion:
    """A model of that family; its tokenizer is the embedded model's, its vocabulary CLIP's size."""
    family = FAMILIES[name]
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    text = dict(family.text)
    config = CLIPTextConfig(
        vocab_size=_VOCABULARY,
        num_hidden_layers=text.pop("layers"),
        num_attention_heads=text.pop("heads"),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **text,
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
    return StableDiffusion(
        id=f"{name}-random",
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(config).eval().requires_grad_(False),
        unet=UNet2DConditionModel(**unet).eval().requires_grad_(False),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=family.prediction,
        ),
    )

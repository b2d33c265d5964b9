"""A UNet of a single block for the toys of `pipelines`: compilers take their time for more."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def one_block(seed: int = 0) -> UNet2DConditionModel:
    """With random weights, for latents of 8x8 and embeddings of 32."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        8, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D",), mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
    )  # fmt: skip

"""A UNet of a single level for the toys of `pipelines`: exporters and compilers take long."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def one_block(seed: int = 0, *, resnets: int = 1, channels: int = 4) -> UNet2DConditionModel:
    """With random weights, for latents of 8x8 and embeddings of 32; nothing attends on the way up.

    Args:
        seed: Of the weights.
        resnets: On the way down, each with an attention; on the way up there is one more.
        channels: That it is given.
    """
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        8, channels, 4, block_out_channels=(32,), layers_per_block=resnets, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D",), mid_block_type=None,
        up_block_types=("UpBlock2D",),
    )  # fmt: skip

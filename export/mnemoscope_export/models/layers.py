"""Layers of a UNet by the names of their modules, in the order in which they run."""

from __future__ import annotations

from itertools import zip_longest

from diffusers import UNet2DConditionModel
from torch import nn

__all__ = ["decoder_layers", "prompted_layers"]

_FIRST_OF_DECODER = ("up_blocks.0.", "up_blocks.1.")


def prompted_layers(unet: UNet2DConditionModel) -> list[str]:
    """Layers whose features depend on the prompt, in the order in which they run.

    Resnets, attentions and resamplers behind the first cross-attention. What comes before it does
    not know the prompt, and the screening graph folds it into constants up to the attention itself.
    """
    blocks: list[tuple[str, nn.Module]] = [
        *((f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)),
        *([("mid_block", unet.mid_block)] if unet.mid_block is not None else []),
        *((f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)),
    ]
    found: list[str] = []
    knows = False  # of the prompt
    for name, block in blocks:
        attends = bool(getattr(block, "has_cross_attention", False))
        for layer in _layers(block):
            if knows:
                found.append(f"{name}.{layer}")
            knows = knows or (attends and layer.startswith("attentions."))
    return found


def decoder_layers(unet: UNet2DConditionModel) -> list[str]:
    """Every resnet and attention of the first two up blocks."""
    return [
        name
        for name in prompted_layers(unet)
        if name.startswith(_FIRST_OF_DECODER) and (".resnets." in name or ".attentions." in name)
    ]


def _layers(block: nn.Module) -> list[str]:
    """Names of a block's layers in the order in which they run: resnets and attentions by turns."""

    def names(kind: str) -> list[str]:
        return [f"{kind}.{i}" for i in range(len(getattr(block, kind, None) or ()))]

    turns = zip_longest(names("resnets"), names("attentions"))
    inner = [name for pair in turns for name in pair if name is not None]
    return [*inner, *names("downsamplers"), *names("upsamplers")]

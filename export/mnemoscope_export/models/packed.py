"""Flows whose transformers are given patches of 2x2 positions, one token each, and two streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .flow import FlowSchedule
from .transformer import TransformerModel

__all__ = ["SIDE", "PackedFlow", "axes_problems"]

SIDE = 2  # positions of a patch
_SIZE = 128, 128  # the pipelines' own, 1024 px


class PackedFlow(FlowSchedule, TransformerModel):
    """What such families have in common: here latents are [B, C, H, W] all the same."""

    hands_levels: ClassVar[bool] = True

    @classmethod
    def check_sides(cls, config: Mapping[str, Any], model: str, size: tuple[int, int]) -> None:  # noqa: ARG003
        """They are whole patches."""
        if any(side % SIDE or side < SIDE for side in size):
            raise InputError(
                f"The transformer of {model} is given patches of {SIDE}x{SIDE}, so "
                f"{size[0]}x{size[1]} latents do not fit. Give multiples of {SIDE}."
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents: the pipeline's 1024 px, unless resized."""
        height, width = self.latent_size or _SIZE
        return self.network.config.in_channels // SIDE**2, height, width

    @property
    def grid(self) -> tuple[int, int]:
        """How many patches there are, down and across."""
        _, height, width = self.latent_shape
        return height // SIDE, width // SIDE

    @property
    def image_tokens(self) -> int:
        """How many patches a picture is."""
        down, across = self.grid
        return down * across

    def packed(self, latents: Tensor) -> Tensor:
        """Patches one by one. # [B, C, H, W] -> [B, N, 4 C]"""
        channels, (down, across) = self.latent_shape[0], self.grid
        x = latents.reshape(-1, channels, down, SIDE, across, SIDE)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, down * across, channels * SIDE**2)

    def unpacked(self, latents: Tensor) -> Tensor:
        """The latents of `packed`. # [B, N, 4 C] -> [B, C, H, W]"""
        channels, (down, across) = self.latent_shape[0], self.grid
        x = latents.reshape(-1, down, across, channels, SIDE, SIDE)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, down * SIDE, across * SIDE)

    def told(self, number: Tensor | float, latents: Tensor) -> Tensor:
        """A number for each sample, in the dtype of the weights, as pipelines hand it on. # [B]"""
        found = number if isinstance(number, Tensor) else torch.tensor(float(number))
        return found.to(latents.device, latents.dtype).reshape(-1).expand(latents.shape[0])

    def feature(self, output: Any) -> Tensor:
        """The image stream, the second of what a block returns. # [B, N, D]"""
        found: Tensor = output[1]
        return found

    def guidance_option(self) -> str:
        """See `Model.guidance_option`."""
        return "true_cfg_scale"

    def both(self, outputs: Sequence[Tensor]) -> Tensor:
        """See `Model.both`: these pipelines run the prompt first, and then the other branch."""
        cond, uncond = outputs
        return self.unpacked(torch.cat([uncond, cond]))


def axes_problems(own: Mapping[str, Any]) -> list[str]:
    """What in a transformer's options does not fit where tokens have places in three axes."""
    axes, width = own["axes_dims_rope"], own["attention_head_dim"]
    if isinstance(axes, list | tuple) and len(axes) == 3 and sum(axes) == width:
        return []
    return [
        f"axes_dims_rope is {axes} (must be three numbers that add up to attention_head_dim, "
        f"{width})"
    ]

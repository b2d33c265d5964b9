"""Stable Diffusion 3's transformer on a bank of noises: what no prompt changes is computed.

That is little: the embedded patches of each noise, and the timestep's embedding. Everything else is
scaled and shifted by what the pooled embedding says, from the first block on. Where there is no T5,
one zero stands for all in its place (`counted`).
"""

from __future__ import annotations

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from .counted import count_last
from .on_bank import OnBank, for_each_noise, for_each_prompt, shared_copy

__all__ = ["FoldedMmdit"]


class FoldedMmdit(OnBank):
    """A transformer of joint blocks at one timestep, on a bank of noises."""

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        noises: Tensor,
        timestep: float,
        zeros: int = 0,
    ) -> None:
        """Fold a transformer.

        Args:
            transformer: Left as it is.
            noises: # [n, C, H, W]
            timestep: t
            zeros: How many of the last text tokens are nothing but zeros, whatever the prompt.
        """
        super().__init__()
        self.transformer = shared_copy(transformer)
        self.zeros = zeros
        if zeros:
            count_last(self.transformer.transformer_blocks, zeros)
        self.height, self.width = noises.shape[2:]
        embedder = transformer.time_text_embed
        with torch.no_grad():
            time = embedder.time_proj(torch.tensor([float(timestep)], device=noises.device))
            self.patches: Tensor
            self.register_buffer("patches", transformer.pos_embed(noises).contiguous())
            self.time: Tensor
            self.register_buffer("time", embedder.timestep_embedder(time.to(noises.dtype)))

    @property
    def network(self) -> SD3Transformer2DModel:
        """The transformer."""
        return self.transformer

    def forward(self, embeds: tuple[Tensor, ...], noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told. # ([B, L, D], [B, P])

        Tokens that should be zeros and are not make all of it NaN: they would not have been read.
        """
        (told, pooled), count = embeds, noise_index.shape[0]
        if self.zeros:
            nothing = told[:, -self.zeros :].float().abs().amax((1, 2))  # CUDA reduces no bfloat16
            pooled = pooled.where(nothing[:, None] == 0, torch.nan)
            told = told[:, : told.shape[1] - self.zeros + 1]
        own = self.transformer
        x = for_each_prompt(self.patches[noise_index], told.shape[0])
        context = for_each_noise(own.context_embedder(told), count)
        temb = for_each_noise(self.time + own.time_text_embed.text_embedder(pooled), count)
        for block in own.transformer_blocks:
            context, x = block(hidden_states=x, encoder_hidden_states=context, temb=temb)
        x = own.proj_out(own.norm_out(x, temb))
        side, channels = own.config.patch_size, own.out_channels
        x = x.reshape(-1, self.height // side, self.width // side, side, side, channels)
        out: Tensor = x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, self.height, self.width)
        return out

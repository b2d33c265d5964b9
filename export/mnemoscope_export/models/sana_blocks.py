"""Sana's transformer on a bank of noises: what no prompt changes is computed."""

from __future__ import annotations

import torch
from diffusers import SanaTransformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.sana_transformer import SanaTransformerBlock
from torch import Tensor, nn

from .base import Embeds
from .masked_attention import unread
from .on_bank import OnBank, for_each_noise, for_each_prompt

__all__ = ["AttendLinear", "FoldedSana"]

_LEAST = 1e-15  # what attention is divided by where no token has any


class AttendLinear:
    """diffusers' SanaLinearAttnProcessor2_0, with a least divisor that the exporter leaves alone.

    What diffusers adds to each divisor is so little that the exporter's rewriter takes it for
    nothing. Then a graph divides zero by zero where a head's query has no number above zero.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        **_: object,
    ) -> Tensor:
        """sum_j v_j (k_j . q_i) / sum_j (k_j . q_i), of k and q above zero. # [B, N, D]"""
        x = hidden_states
        query, key, value = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        q, k, v = (
            each.transpose(1, 2).unflatten(1, (attn.heads, -1)).float()  # [B, heads, d, N]
            for each in (query.relu(), key.relu(), value)
        )
        found = v @ k.transpose(2, 3) @ q / (k.sum(-1)[:, :, None] @ q).clamp(min=_LEAST)
        projected: Tensor = attn.to_out[0](found.flatten(1, 2).transpose(1, 2).to(x.dtype))
        return projected


class _Rest(nn.Module):
    """A block from where it is told of the prompt: attention to it, and the convolutions behind."""

    def __init__(self, block: SanaTransformerBlock, time: Tensor) -> None:
        super().__init__()
        self.attn2, self.norm2, self.ff = block.attn2, block.norm2, block.ff
        self.modulation: Tensor
        self.register_buffer("modulation", _modulation(block, time))

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
        """See diffusers' SanaTransformerBlock. # [B, N, D]"""
        _, _, _, shift, scale, gate = self.modulation.chunk(6, dim=1)
        x = self.attn2(x, encoder_hidden_states=text, attention_mask=bias) + x
        shifted = self.norm2(x) * (1 + scale) + shift
        mixed = self.ff(shifted.unflatten(1, size).permute(0, 3, 1, 2))
        out: Tensor = x + gate * mixed.flatten(2).permute(0, 2, 1)
        return out


class FoldedSana(OnBank):
    """A transformer at one timestep, on a bank of noises.

    No prompt changes the timestep's embedding, so of the first block no prompt changes what comes
    before its attention to the text: the patches' attention to each other.
    """

    def __init__(self, transformer: SanaTransformer2DModel, noises: Tensor, timestep: int) -> None:
        """Fold a `traceable` model's for `noises` [n, C, H, W] at `timestep`."""
        super().__init__()
        self.transformer = own = transformer
        side = own.config.patch_size
        self.size = noises.shape[2] // side, noises.shape[3] // side
        first = own.transformer_blocks[0]
        with torch.no_grad():
            at = torch.tensor([timestep], device=noises.device) * own.config.timestep_scale
            time, embedded = own.time_embed(at, batch_size=1, hidden_dtype=noises.dtype)
            shift, scale, gate, *_ = _modulation(first, time).chunk(6, dim=1)
            rows = []
            for noise in noises:
                x = own.patch_embed(noise[None])
                rows.append(x + gate * first.attn1(first.norm1(x) * (1 + scale) + shift))
        for name, value in (("attended", torch.cat(rows)), ("time", time), ("embedded", embedded)):
            self.register_buffer(name, value)
        own.transformer_blocks[0] = _Rest(first, time)

    @property
    def network(self) -> SanaTransformer2DModel:
        """The transformer."""
        return self.transformer

    def forward(self, embeds: Embeds, noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told. # ([B, 300, D], [B, 300])"""
        (told, mask), count, own = embeds, noise_index.shape[0], self.transformer
        x = for_each_prompt(self.get_buffer("attended")[noise_index], told.shape[0])
        text = for_each_noise(own.caption_norm(own.caption_projection(told)), count)
        bias = for_each_noise(unread(mask), count)
        first, *others = own.transformer_blocks
        x = first(x, text, bias, self.size)
        time = self.get_buffer("time").expand(x.shape[0], -1)
        for block in others:
            x = block(x, None, text, bias, time, *self.size)
        x = own.norm_out(x, self.get_buffer("embedded"), own.scale_shift_table)
        x = own.proj_out(x).unflatten(-1, (own.config.patch_size, own.config.patch_size, -1))
        x = x.unflatten(1, self.size).permute(0, 5, 1, 3, 2, 4)  # [B, C, H, side, W, side]
        out: Tensor = x.flatten(4, 5).flatten(2, 3)
        return out


def _modulation(block: SanaTransformerBlock, time: Tensor) -> Tensor:
    """What shifts, scales and gates a block's layers. # [1, 6, D]"""
    found: Tensor = block.scale_shift_table[None] + time.reshape(1, 6, -1)
    return found.detach()

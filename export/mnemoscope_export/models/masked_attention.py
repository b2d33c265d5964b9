"""Masks of prompts of which some tokens are padding, and attention to them for any batch size."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["AttendMasked", "unread", "up_to_last"]

_UNREAD = -10_000.0  # what diffusers adds to the attention that a token is not to have


def unread(mask: Tensor) -> Tensor:
    """What is added to attention, of 1 where a token is read. # [B, L] -> [B, 1, L]"""
    return ((1 - mask) * _UNREAD)[:, None]


def up_to_last(found: Tensor, dtype: torch.dtype) -> Tensor:
    """1 up to the last place where something was found, that one included. # [B, L]"""
    places = torch.arange(found.shape[1], device=found.device)
    last = (found.to(torch.int64) * places).amax(1, keepdim=True)
    return (places <= last).to(dtype)


class AttendMasked:
    """diffusers' AttnProcessor2_0 and SanaAttnProcessor2_0: their masks for each head fix a batch.

    Where queries and keys are normed, that is before they are cut into heads, as Sana's are.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend to the text, or to the patches themselves. # [B, N, D]"""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (
            each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in (query, key, value)
        )
        bias = None if attention_mask is None else attention_mask[:, None]  # [B, 1, 1, L]
        found = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        projected: Tensor = attn.to_out[0](found.transpose(1, 2).flatten(2))
        return projected

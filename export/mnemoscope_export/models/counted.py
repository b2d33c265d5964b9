"""Joint attention to tokens of which the last stands for many that are all alike.

A Stable Diffusion 3 without its T5 is told 256 zeros in the T5's place. They have no positions, so
every block makes the same of each of them: one of them will do, if attention counts it 256 times,

    softmax(q k_i) = exp(q k_i) / (sum over the others + 256 exp(q k_0)),

which is what adding log 256 to its logit does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CountedAttention", "count_last"]


class CountedAttention(nn.Module):
    """Processor of diffusers' `Attention` in joint blocks.

    Attributes:
        count: How many text tokens the last one stands for.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Attend from patches and text to both.

        Args:
            attn: The layers.
            hidden_states: Patches. # [B, N, D]
            encoder_hidden_states: Text. # [B, L, D]

        Returns:
            Of both, as they were given; the text's is not projected in the last block.
        """
        own, text = hidden_states, encoder_hidden_states
        heads, patches = attn.heads, own.shape[1]

        def split(x: Tensor, norm: nn.Module | None) -> Tensor:  # [B, heads, tokens, D / heads]
            apart = x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
            found: Tensor = apart if norm is None else norm(apart)
            return found

        query, key, value = (
            torch.cat([split(layer(own), norm), split(added(text), added_norm)], 2)
            for layer, norm, added, added_norm in (
                (attn.to_q, attn.norm_q, attn.add_q_proj, attn.norm_added_q),
                (attn.to_k, attn.norm_k, attn.add_k_proj, attn.norm_added_k),
                (attn.to_v, None, attn.add_v_proj, None),
            )
        )
        counted = query.new_zeros(query.shape[2])
        counted = F.pad(counted[:-1], (0, 1), value=math.log(self.count))
        found = F.scaled_dot_product_attention(query, key, value, counted[None, None, None])
        found = found.transpose(1, 2).flatten(2)
        own, text = found[:, :patches], found[:, patches:]
        return attn.to_out[1](attn.to_out[0](own)), (
            text if attn.context_pre_only else attn.to_add_out(text)
        )


def count_last(blocks: nn.ModuleList, count: int) -> None:
    """Let joint blocks take their last text token for so many of them."""
    for block in blocks:
        attention: Any = block.attn
        attention.set_processor(CountedAttention(count))

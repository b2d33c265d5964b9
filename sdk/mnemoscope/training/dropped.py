"""Captions of a batch that were dropped, for classifier-free guidance."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROUNDING", "away", "is_dropped"]

ROUNDING = 1e-4
"""So far from the empty prompt a dropped caption is by what float32 rounds alone."""
_ALIKE = 0.1  # bfloat16 moves a token by .007 to .02, and a caption of one letter one of them by .4


def is_dropped(embeds: Tensor, empty: Tensor) -> Tensor:
    """Which embeddings are the empty prompt's, be it in another precision, or zeros. # [B]

    Args:
        embeds: # [B, L, D]
        empty: The empty prompt's. # [1, L, D]
    """
    return (away(embeds, empty) <= _ALIKE) | (embeds == 0).flatten(1).all(1)


def away(embeds: Tensor, empty: Tensor) -> Tensor:
    """How far each is from the empty prompt, at the token where it is farthest. # [B]

    Relative to that token's norm.
    """
    difference = torch.linalg.vector_norm(embeds.float() - empty.float(), dim=-1)
    length = torch.linalg.vector_norm(empty.float(), dim=-1)
    relative: Tensor = difference / length.clamp(min=torch.finfo(torch.float32).tiny)
    return relative.amax(1)

"""The magnitude as a function one can differentiate, by what the network is told of the prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models import Embeds, Model
from ..reference import magnitude

__all__ = ["magnitude_of", "unconditional"]


@torch.no_grad()
def unconditional(model: Model, latents: Tensor, timestep: Tensor | float) -> Tensor:
    """eps(x_t, t, e_empty), which no prompt changes: worth keeping.

    Args:
        model: A model.
        latents: x_t. # [B, C, H, W]
        timestep: t

    Returns:
        In the model's unit, fp32. # [B, C, H, W]
    """
    empty = tuple(each.expand(len(latents), *each.shape[1:]) for each in model.embed_empty())
    return model.predict_in_unit(latents, timestep, empty)


def magnitude_of(
    model: Model,
    embeds: Embeds,
    latents: Tensor,
    timestep: Tensor | float,
    without: Tensor,
) -> Tensor:
    """m_t = || eps(x_t, t, e) - eps(x_t, t, e_empty) ||_2 of every sample, with its graph.

    One norm a sample: the reference code of Wen et al. takes one norm over the whole batch, so
    that its targets grow with the square root of the number of noises.

    Args:
        model: A model; parameters need no gradients.
        embeds: Of `model.encode`. # ([B, L, D],)
        latents: x_t. # [B, C, H, W]
        timestep: t
        without: Of `unconditional`. # [B, C, H, W]

    Returns:
        # [B], in the model's unit, fp32
    """
    return magnitude(model.predict_in_unit(latents, timestep, embeds), without)

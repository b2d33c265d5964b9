"""How the difference of the two predictions changes with the latents, exactly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...models import Embeds, Model

__all__ = ["along_itself"]


@torch.no_grad()
def along_itself(model: Model, embeds: Embeds, latents: Tensor, timestep: Tensor | float) -> Tensor:
    """J d with d(x) = eps(x, t, e_prompt) - eps(x, t, e_empty) and J its Jacobian at x.

    In forward mode: one pass with tangents, by attention written out, since the fused kernels have
    no forward derivative.

    Args:
        model: A model.
        embeds: Of `model.encode`. # [B, ...] each
        latents: x. # [B, C, H, W]
        timestep: t

    Returns:
        In eps units, fp32. # [B, C, H, W]
    """
    empty = tuple(each.expand(len(latents), *each.shape[1:]) for each in model.embed_empty())

    def difference(x: Tensor) -> Tensor:
        cond, uncond = (model.predict_in_unit(x, timestep, each) for each in (embeds, empty))
        return cond - uncond

    with sdpa_kernel(SDPBackend.MATH):
        d = difference(latents)
        product: Tensor = torch.func.jvp(difference, (latents,), (d.to(latents.dtype),))[1]
    return product

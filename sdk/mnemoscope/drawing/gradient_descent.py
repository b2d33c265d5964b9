"""Adam on something that every sample has of its own, until each sample's loss meets a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError, NumericsError

__all__ = ["Descent", "Found", "descend", "prompted"]


@dataclass(frozen=True)
class Descent:
    """How far, how fast and how long.

    Attributes:
        target: A sample whose loss is no higher is left alone from then on; > 0.
        rate: Adam's learning rate, > 0.
        iterations: At most so many, >= 1.
    """

    target: float
    rate: float
    iterations: int

    def __post_init__(self) -> None:
        if not (0 < self.target < float("inf")):
            raise InputError(
                f"A target of {self.target} cannot be met: magnitudes are positive. Give one that "
                "benign prompts have, such as the median of a calibration's scores."
            )
        if not self.rate > 0 or self.iterations < 1:
            raise InputError("A learning rate is positive, and there is at least one iteration.")


@dataclass(frozen=True)
class Found:
    """Where it ended: value [B, ...], and gradients that a sample took on average."""

    value: Tensor
    iterations: float


def prompted(embeds: Tensor) -> Tensor:
    """1 where a prompt's embeddings are free to change, 0 where no prompt changes them.

    That is the start token's place, and zeros: Stable Diffusion 3 is told them beside CLIP's
    states, and where it has no T5.

    Args:
        embeds: # [B, L, D]

    Returns:
        # [L, D]
    """
    free = (embeds != 0).any(0).to(embeds.dtype)
    free[0] = 0
    return free


def descend(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    descent: Descent,
    *,
    free: Tensor | None = None,
    project: Callable[[Tensor], Tensor] = lambda value: value,
) -> Found:
    """Descend.

    Args:
        loss: Of every sample. # [B, ...] -> [B]
        start: # [B, ...]
        descent: How.
        free: 0 where the value must stay as it is, 1 elsewhere. # broadcasts to [B, ...]
        project: Applied after every step. # [B, ...] -> [B, ...]

    Raises:
        NumericsError: a loss or a gradient is NaN or infinite.
    """
    value = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([value], descent.rate)
    taken = 0
    for _ in range(descent.iterations):
        losses = loss(value)
        above = losses.detach() > descent.target
        if losses.isfinite().all() and not above.any():
            break
        (gradient,) = torch.autograd.grad(losses.sum(), value)
        if not (losses.isfinite().all() and gradient.isfinite().all()):
            raise NumericsError(
                f"The magnitude or its gradient became NaN or infinite in {value.dtype}. Use "
                "float32, or a lower learning rate."
            )
        taken += int(above.sum())
        moving = above.view(-1, *(1,) * (value.dim() - 1))
        value.grad = gradient if free is None else gradient * free
        before = value.detach().clone()
        optimizer.step()
        with torch.no_grad():
            value.copy_(torch.where(moving, project(value), before))
    return Found(value.detach(), taken / len(start))

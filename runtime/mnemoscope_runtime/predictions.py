"""What a piece of a measurement goes into, and what the network says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Embeds", "Part", "Prediction"]

Array = NDArray[np.float32]
Embeds = tuple[Array, ...]


@dataclass(frozen=True)
class Part:
    """Some prompts on some noises: as many as go into one engine call.

    Attributes:
        where: Rows (prompts) and columns (noises) of the whole measurement.
        embeds: What the network is told of the prompts. # [b, ...] each
        latents: The noises, the same for every prompt. # [b, m, C, H, W]
        empty: What the unconditional branch is told; None for the empty prompt. # [1, ...] each
    """

    where: tuple[slice, slice]
    embeds: Embeds
    latents: Array
    empty: Embeds | None = None


@dataclass(frozen=True)
class Prediction:
    """What the network says of the latents of a part at one timestep, in the bundle's unit.

    Attributes:
        timestep: t
        latents: x_t # [b, m, C, H, W]
        magnitude: || cond - uncond ||_2, >= 0 # [b, m]
        cond: eps(x_t, t, e_prompt), of flows the predicted picture. # [b, m, C, H, W]
        uncond: eps(x_t, t, e_empty), likewise. # [b, m, C, H, W]
        taps: || h_l(x_t, t, e_prompt) - h_l(x_t, t, e_empty) ||_2 of every tapped layer, in units
            of its own, >= 0. # [b, m, K]
    """

    timestep: float
    latents: Array
    magnitude: Array
    cond: Array
    uncond: Array
    taps: Array

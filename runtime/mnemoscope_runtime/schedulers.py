"""DDIM (Song et al. 2021) in numpy: the sampler of the paper's protocol."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .manifest import Scheduler

__all__ = ["alphas_cumprod", "ddim_step", "guide", "timesteps"]

Array = NDArray[np.float32]


def alphas_cumprod(scheduler: Scheduler) -> NDArray[np.float64]:
    """Signal kept at each training timestep, alpha-bar in the paper.

    Returns:
        # [num_train_timesteps], falling from nearly 1 to nearly 0
    """
    count, start, end = scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end
    if scheduler.beta_schedule == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    else:
        betas = np.linspace(start, end, count)
    return np.cumprod(1 - betas)


def timesteps(scheduler: Scheduler) -> NDArray[np.int64]:
    """The timesteps of a whole image, from the noisiest down.

    Returns:
        # [inference_steps]
    """
    total, count = scheduler.num_train_timesteps, scheduler.inference_steps
    if scheduler.timestep_spacing == "trailing":
        trailing = np.round(np.arange(total, 0, -total / count)).astype(np.int64) - 1
        return trailing[:count]  # for some counts arange rounds to one more
    leading = np.arange(count)[::-1] * (total // count) + scheduler.steps_offset
    return np.asarray(leading, np.int64)


def guide(eps_uncond: Array, eps_cond: Array, guidance: float) -> Array:
    """Classifier-free guidance (Ho & Salimans 2022): eps_u + g (eps_c - eps_u)."""
    return np.asarray(eps_uncond + np.float32(guidance) * (eps_cond - eps_uncond), np.float32)


def ddim_step(latents: Array, eps: Array, timestep: int, scheduler: Scheduler) -> Array:
    """One deterministic step (eta = 0), equation 12 of the DDIM paper.

    Args:
        latents: x_t. # [B, C, H, W]
        eps: The predicted noise, also for v-prediction models. # [B, C, H, W]
        timestep: t, one of `timesteps`.
        scheduler: The noise schedule.

    Returns:
        x at the next timestep. # [B, C, H, W]
    """
    abar = alphas_cumprod(scheduler)
    before = timestep - scheduler.num_train_timesteps // scheduler.inference_steps
    final = 1.0 if scheduler.set_alpha_to_one else abar[0]
    abar_t, abar_next = abar[timestep], abar[before] if before >= 0 else final
    x0 = (latents - (1 - abar_t) ** 0.5 * eps) / abar_t**0.5
    return np.asarray(abar_next**0.5 * x0 + (1 - abar_next) ** 0.5 * eps, np.float32)

"""The paper's metric in plain PyTorch: the oracle every engine is compared with.

Wen et al., "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", ICLR 2024:
the magnitude of the text-conditional noise prediction,

    m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2,

measured while DDIM samples with classifier-free guidance. It is large for memorised prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mnemoscope_runtime.errors import NumericsError
from torch import Tensor

from .models import StableDiffusion

__all__ = ["magnitude", "magnitudes"]


def magnitude(eps_cond: Tensor, eps_uncond: Tensor) -> Tensor:
    """|| eps_cond - eps_uncond ||_2 per sample, in fp32.

    Args:
        eps_cond: # [B, C, H, W]
        eps_uncond: # [B, C, H, W], or [1, C, H, W]

    Returns:
        # [B]
    """
    return (eps_cond.float() - eps_uncond.float()).flatten(1).square().sum(1).sqrt()


@torch.no_grad()
def magnitudes(
    model: StableDiffusion,
    prompts: Sequence[str],
    noises: Tensor,  # [n, C, H, W]
    *,
    steps: int = 1,
    inference_steps: int = 50,
    guidance: float = 7.5,
) -> Tensor:
    """Magnitudes along the first `steps` steps of sampling; their mean is the prompt's score.

    One UNet call per prompt and step, on the concatenated [uncond; cond] batch of all noises, as
    a serving stack does it.

    Args:
        model: A Stable Diffusion model, in any dtype, on any device.
        prompts: The prompts.
        noises: Initial noises x_T, shared by the prompts; see `noise_bank`.
        steps: 1 for the first step, `inference_steps` for all of them.
        inference_steps: DDIM steps of a whole image.
        guidance: Scale of classifier-free guidance.

    Returns:
        # [prompt, noise, step], fp32, on the CPU

    Raises:
        NumericsError: a magnitude is NaN or infinite.
    """
    device, dtype = model.unet.device, model.unet.dtype
    empty = model.embed([""])
    values = torch.empty(len(prompts), len(noises), steps)
    for row, prompt in enumerate(prompts):
        context = torch.cat([empty, model.embed([prompt])]).repeat_interleave(len(noises), 0)
        sampler = model.sampler()
        sampler.set_timesteps(inference_steps)
        latents = noises.to(device, dtype) * sampler.init_noise_sigma
        for column, t in enumerate(sampler.timesteps[:steps]):
            output = model.unet(torch.cat([latents, latents]), t, context).sample
            uncond, cond = output.chunk(2)
            eps_uncond, eps_cond = (model.to_eps(part, latents, t) for part in (uncond, cond))
            values[row, :, column] = magnitude(eps_cond, eps_uncond).cpu()
            guided = uncond + guidance * (cond - uncond)
            latents = sampler.step(guided, t, latents).prev_sample
    if not values.isfinite().all():
        row = int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
        raise NumericsError(
            f"The magnitude of prompt {row} is NaN or infinite in {dtype}. Use float32."
        )
    return values

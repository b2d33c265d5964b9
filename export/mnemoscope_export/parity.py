"""PyTorch as the oracle of the gate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnemoscope_runtime.agreement import noise_norm, smallest
from mnemoscope_runtime.schedulers import timesteps

from .gate import PROMPTS, Plan, Reference
from .models import StableDiffusion
from .reference import measure, measure_at, tap_norms

__all__ = ["measure_reference"]


def measure_reference(
    model: StableDiffusion,
    bank: Tensor,
    *,
    timestep: int,
    inference_steps: int,
    guidance: float,
    taps: Sequence[str] = (),
) -> Reference:
    """What PyTorch measures of the plan's prompts on a noise bank [n, C, H, W].

    Args:
        model: In float32.
        bank: Initial noises x_T. # [n, C, H, W]
        timestep: Of screening.
        inference_steps: DDIM steps of a whole image.
        guidance: Scale of classifier-free guidance.
        taps: Layers of the UNet.
    """
    plan = Plan.of(model.unet.num_parameters())
    prompts = PROMPTS[: plan.prompts]
    sampling = measure(
        model,
        prompts,
        bank,
        steps=plan.steps,
        inference_steps=inference_steps,
        guidance=guidance,
        taps=taps,
    )
    first = int(timesteps(model.scheduler_record(inference_steps))[0])
    screening = sampling[:, :, 0]
    if timestep != first:
        screening = measure_at(model, prompts, bank, timestep, taps=taps)
    embeds = tuple(each.float().numpy() for each in model.embed(PROMPTS))
    norms = (noise_norm(bank[0].numel()), *tap_norms(model, bank[:1], timestep, taps))
    floors = tuple(smallest(norm) for norm in norms)
    return Reference("PyTorch", plan, screening.numpy(), sampling.numpy(), embeds, floors)

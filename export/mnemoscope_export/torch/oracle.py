"""PyTorch as the oracle of the gate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnemoscope_runtime.agreement import noise_norm, smallest
from mnemoscope_runtime.schedulers import timesteps

from ..models import Model
from ..oracle import PROMPTS, Coverage, Reference
from .reference import measure, measure_at, tap_norms

__all__ = ["measure_reference"]


def measure_reference(
    model: Model,
    bank: Tensor,
    *,
    timestep: int,
    inference_steps: int,
    guidance: float,
    taps: Sequence[str] = (),
) -> Reference:
    """What PyTorch measures of the prompts covered on a noise bank [n, C, H, W].

    Args:
        model: In float32.
        bank: Initial noises x_T. # [n, C, H, W]
        timestep: Of screening.
        inference_steps: DDIM steps of a whole image.
        guidance: Scale of classifier-free guidance.
        taps: Layers of the network.
    """
    coverage = Coverage.of(model.network.num_parameters())
    prompts = PROMPTS[: coverage.prompts]
    sampling = measure(
        model,
        prompts,
        bank,
        steps=coverage.steps,
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
    return Reference("PyTorch", coverage, screening.numpy(), sampling.numpy(), embeds, floors)

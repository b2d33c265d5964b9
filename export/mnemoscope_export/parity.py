"""PyTorch as the oracle of the gate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime import Screener

from .gate import PROMPTS, Plan, Tolerance, compare
from .models import StableDiffusion
from .reference import magnitudes

__all__ = ["check_parity", "reference"]


def reference(
    model: StableDiffusion, bank: Tensor, *, inference_steps: int, guidance: float
) -> NDArray[np.float32]:
    """What PyTorch measures for the plan's prompts on every noise, at the first steps.

    Returns:
        # [prompt, noise, step]
    """
    plan = Plan.of(model.unet.num_parameters())
    prompts = PROMPTS[: plan.prompts]
    return magnitudes(
        model, prompts, bank, steps=plan.steps, inference_steps=inference_steps, guidance=guidance
    ).numpy()


def check_parity(
    open_screener: Callable[[], Screener],
    model: StableDiffusion,
    expected: NDArray[np.float32],  # `reference` of the model, [prompt, noise, step]
    tolerance: Tolerance,
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with PyTorch; see `gate.compare`."""
    embeds = model.embed(list(PROMPTS)).float().numpy()
    plan = Plan.of(model.unet.num_parameters())
    return compare(open_screener, expected, embeds, plan, tolerance, "PyTorch")

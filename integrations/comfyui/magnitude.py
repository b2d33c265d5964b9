"""The magnitude of what ComfyUI's guidance is about to combine: two predicted pictures.

`conds_out` holds predictions of the picture x0, whatever the network itself predicts, and two of
them for one x_t differ by what `mnemoscope_runtime.units` says. ComfyUI scales x_t in two ways:

| x_t | models | a, s of the same signal-to-noise | unit |
|---|---|---|---|
| x0 + sigma eps | predict noise or velocity | 1 / r, sigma / r, with r^2 = 1 + sigma^2 | eps |
| (1 - sigma) x0 + sigma eps | predict a flow | 1 - sigma, sigma | x0 |
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.units import Level, PredictionType, Unit, x0_per_unit

__all__ = ["PREDICTIONS", "magnitudes", "noise_level", "prediction_type", "unit"]

# the class of ComfyUI that makes pictures of a network's output, and what that output is
PREDICTIONS: dict[str, PredictionType] = {
    "EPS": "epsilon",
    "V_PREDICTION": "v_prediction",
    "CONST": "flow_prediction",
}
_LEAST_SIGNAL = 1e-3  # as of a guard of a diffusers pipeline


def prediction_type(sampling: Any) -> PredictionType:
    """What a model predicts.

    Args:
        sampling: Its `model_sampling`.

    Raises:
        InputError: its pictures are made in a way that no table knows.
    """
    makes = next((c for c in type(sampling).__mro__ if "calculate_denoised" in vars(c)), object)
    if makes.__name__ not in PREDICTIONS or "calculate_denoised" in vars(sampling):
        raise InputError(
            f"This model's sampling, {makes.__name__}, is none whose magnitude is known: the guard "
            f"reads {', '.join(PREDICTIONS)} (models that predict noise, velocity or a flow). "
            "Take out the node that patches its sampling, or screen the prompt with a bundle."
        )
    return PREDICTIONS[makes.__name__]


def unit(prediction: PredictionType) -> Unit:
    """What magnitudes of such a model are measured in."""
    return "x0" if prediction == "flow_prediction" else "eps"


def noise_level(prediction: PredictionType, sigma: float) -> Level:
    """The noise level that ComfyUI means by a sigma.

    Raises:
        InputError: no picture is on its way there, or of a velocity nothing of the noise is left.
    """
    most = 1.0 if prediction == "flow_prediction" else math.inf
    if not 0 < sigma <= most or math.isinf(sigma):
        raise InputError(
            f"The sampler asked at sigma {sigma:g}, which is no noise level of a model that "
            f"predicts {prediction}. Use another sampler or scheduler."
        )
    if prediction == "flow_prediction":
        return Level(1 - sigma, sigma)
    level = Level(1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma))
    if prediction == "v_prediction" and level.signal < _LEAST_SIGNAL:
        raise InputError(
            f"At sigma {sigma:g} nothing of the picture is left (zero terminal SNR), so that a "
            "velocity says nothing of the noise. Take zsnr out of ModelSamplingDiscrete, or use a "
            "scheduler that starts lower."
        )
    return level


def magnitudes(cond: Tensor, uncond: Tensor, prediction: PredictionType, sigma: float) -> Tensor:
    """|| d(prompt) - d(baseline) ||_2 of every image, in float32.

    Args:
        cond: The picture predicted with the prompt. # [B, C, H, W]
        uncond: The one predicted without it. # [B, C, H, W]
        prediction: What the model predicts.
        sigma: ComfyUI's noise level, above 0.

    Returns:
        In eps units, of flows in those of the predicted picture. # [B]

    Raises:
        InputError: as `noise_level`.
    """
    level = noise_level(prediction, sigma)
    distance = torch.linalg.vector_norm((cond.float() - uncond.float()).flatten(1), dim=1)
    found: Tensor = distance / x0_per_unit(unit(prediction), level)
    return found

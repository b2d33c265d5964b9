"""Differences of predictions in a family's unit, whatever is predicted and whatever samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.units import Unit

__all__ = ["eps_scale", "unit_scale", "x0_scale"]


def unit_scale(unit: Unit, scheduler: Any, timestep: float) -> float:
    """What turns the distance of two predictions for the same x into a unit at a timestep.

    Raises:
        InputError: the scheduler is of another kind, or nothing of the picture is left at t.
    """
    return (eps_scale if unit == "eps" else x0_scale)(scheduler, timestep)


def x0_scale(scheduler: Any, timestep: float) -> float:
    """What turns || v(x, c) - v(x, u) || into x0 units: s, the share of noise at a timestep.

    Args:
        scheduler: Of diffusers, of a rectified flow.
        timestep: t, s times the timesteps of training.

    Raises:
        InputError: the scheduler is of another kind.
    """
    kind = type(scheduler).__name__
    solves = kind == "DPMSolverMultistepScheduler" and scheduler.config.use_flow_sigmas
    if kind != "FlowMatchEulerDiscreteScheduler" and not solves:
        raise InputError(
            f"A guard does not know what {kind} makes of the velocity of a flow. Use "
            "FlowMatchEulerDiscreteScheduler, or DPMSolverMultistepScheduler with use_flow_sigmas."
        )
    return timestep / float(scheduler.config.num_train_timesteps)


def eps_scale(scheduler: Any, timestep: float) -> float:
    """What turns || f(x, c) - f(x, u) || into eps units at a timestep.

    With abar the signal kept at t, and x the same on both sides: 1 for UNets that predict the
    noise, sqrt(abar) for the velocity, sqrt(abar / (1 - abar)) for the picture.

    Args:
        scheduler: Of diffusers, with training timesteps and `alphas_cumprod`.
        timestep: t; samplers that choose noise levels may give one between two of training.

    Raises:
        InputError: nothing of the picture is left at t, or the scheduler is of another kind.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return 1.0
    if kind not in ("v_prediction", "sample") or not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(
            f"A guard does not know what {type(scheduler).__name__} with prediction_type {kind!r} "
            "makes of a prediction. Use DDIM, PNDM, Euler, DPM-Solver++ or UniPC."
        )
    abars = scheduler.alphas_cumprod.double().cpu().numpy()
    with np.errstate(divide="ignore"):
        sigma = np.interp(timestep, np.arange(len(abars)), np.sqrt(1 / abars - 1))
    abar = float(1 / (1 + sigma**2))
    scale = math.sqrt(abar) if kind == "v_prediction" else math.sqrt(abar / (1 - abar))
    if scale < 1e-3:
        raise InputError(
            f"At timestep {timestep:g} nothing of the picture is left (zero terminal SNR), so that "
            "a velocity says nothing of the noise. Use a scheduler without "
            "`rescale_betas_zero_snr`, or one that starts lower."
        )
    return scale

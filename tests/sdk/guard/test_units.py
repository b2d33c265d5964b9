"""Differences of predictions in eps units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from pipelines import scheduler

from mnemoscope import InputError
from mnemoscope.guard.units import eps_scale, unit_scale, x0_scale

pytestmark = pytest.mark.numeric

ABAR = scheduler("epsilon").alphas_cumprod.double()


@pytest.mark.parametrize("t", [1, 500, 981])
def test_scales(t: int) -> None:
    abar = float(ABAR[t])
    assert eps_scale(scheduler("epsilon"), t) == 1
    assert eps_scale(scheduler("v_prediction"), t) == pytest.approx(abar**0.5, rel=1e-6)
    expected = (abar / (1 - abar)) ** 0.5
    assert eps_scale(scheduler("sample"), t) == pytest.approx(expected, rel=1e-6)


def test_it_is_what_turns_velocities_into_noise() -> None:
    """eps = sqrt(abar) v + sqrt(1 - abar) x, of which x cancels."""
    x, v, w = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 700
    eps = [ABAR[t].sqrt() * each + (1 - ABAR[t]).sqrt() * x for each in (v, w)]
    expected = (eps[0] - eps[1]).norm()
    assert eps_scale(scheduler("v_prediction"), t) * (v - w).norm() == pytest.approx(
        float(expected)
    )


def test_it_is_what_turns_velocities_into_pictures() -> None:
    """x0 = x - s v, of which x cancels; s is the level that diffusers' sampler has at t."""
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(5)
    for t, s in zip(flow.timesteps.tolist(), flow.sigmas.tolist(), strict=False):
        assert unit_scale("x0", flow, t) == pytest.approx(s)
    assert unit_scale("eps", scheduler("v_prediction"), 500) == eps_scale(
        scheduler("v_prediction"), 500
    )
    solver = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    solver.set_timesteps(5)  # whole ones, a little below its levels
    for t, s in zip(solver.timesteps.tolist(), solver.sigmas.tolist(), strict=False):
        assert unit_scale("x0", solver, t) == pytest.approx(s, abs=1e-3)
    for other in (FlowMatchHeunDiscreteScheduler(), DPMSolverMultistepScheduler()):
        with pytest.raises(InputError, match=f"does not know what {type(other).__name__}"):
            x0_scale(other, 1000)


def test_between_two_timesteps() -> None:
    """Samplers that choose noise levels stop between those of training."""
    euler = EulerDiscreteScheduler.from_config(scheduler("v_prediction").config)
    low, high = (eps_scale(euler, t) for t in (501, 500))
    assert low < eps_scale(euler, 500.5) < high


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
            "zero terminal SNR",
        ),
        (EDMEulerScheduler(prediction_type="v_prediction"), "does not know what EDMEuler"),
    ],
)
def test_refused(other: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        eps_scale(other, 999)

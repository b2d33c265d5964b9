"""What magnitudes are measured in, against diffusers' schedulers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from mnemoscope_runtime.schedulers import Ddim, FlowEuler, level
from mnemoscope_runtime.units import Level, PredictionType, unit_per_output, x0_per_unit

SD = Ddim("scaled_linear", 0.00085, 0.012, 1000, 1, False, "leading", 50)
PIXART = Ddim("linear", 0.0001, 0.02, 1000, 0, True, "leading", 50)


@pytest.mark.parametrize(
    ("scheduler", "timestep", "ratio"), [(SD, 981, 13.12), (SD, 999, 14.61), (PIXART, 999, 157.4)]
)
def test_published_schedules(scheduler: Ddim, timestep: int, ratio: float) -> None:
    """The constants of docs/metric.md."""
    assert x0_per_unit("eps", level(scheduler, timestep)) == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("timestep", [1, 481, 981])
def test_diffusers_predicts_as_far_apart(kind: PredictionType, timestep: int) -> None:
    sampler = DDIMScheduler(
        beta_start=SD.beta_start, beta_end=SD.beta_end, beta_schedule="scaled_linear",
        clip_sample=False, prediction_type=kind,
    )  # fmt: skip
    sampler.set_timesteps(50)
    x, one, other = torch.randn(3, 1, 4, 8, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    x0, x0_ = (sampler.step(out, timestep, x).pred_original_sample for out in (one, other))
    at = level(SD, timestep)
    out, x0_apart = float((one - other).norm()), float((x0 - x0_).norm())
    assert x0_apart == pytest.approx(out * unit_per_output(kind, "x0", at), rel=1e-4)
    eps_apart = out * unit_per_output(kind, "eps", at)
    assert x0_apart == pytest.approx(eps_apart * x0_per_unit("eps", at), rel=1e-4)


@pytest.mark.parametrize("timestep", [1, 300, 1000])
def test_flows_predict_as_far_apart(timestep: int) -> None:
    """A step to s = 0 is diffusers' predicted picture; noise and picture make up x_t."""
    sampler = FlowMatchEulerDiscreteScheduler()
    s = timestep / 1000
    sampler.sigmas, sampler.timesteps = torch.tensor([s, 0.0]), torch.tensor([1000 * s])
    x, one, other = torch.randn(3, 1, 4, 8, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    pictures = []
    for out in (one, other):
        sampler._step_index = None
        pictures.append(sampler.step(out, sampler.timesteps[0], x).prev_sample)
    at = level(FlowEuler(1000, 1.0, 0.001, 28), timestep)
    out, apart = float((one - other).norm()), float((pictures[0] - pictures[1]).norm())
    assert apart == pytest.approx(out * unit_per_output("flow_prediction", "x0", at), rel=1e-6)
    noises = [x + (1 - s) * v for v in (one, other)]
    for picture, noise in zip(pictures, noises, strict=True):
        torch.testing.assert_close((1 - s) * picture + s * noise, x.double(), rtol=1e-5, atol=1e-5)
    eps = float((noises[0] - noises[1]).norm())
    assert eps == pytest.approx(out * unit_per_output("flow_prediction", "eps", at), abs=1e-6)


def test_pure_noise_of_a_flow_has_no_distance_in_eps() -> None:
    noise = Level(0.0, 1.0)
    assert unit_per_output("flow_prediction", "eps", noise) == 0
    assert unit_per_output("flow_prediction", "x0", noise) == 1


def test_a_picture_is_a_picture() -> None:
    assert get_args(PredictionType)
    assert x0_per_unit("x0", Level(0.5, 0.5)) == 1

"""Steps along a flow, against diffusers' FlowMatchEuler and DPM-Solver schedulers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from mnemoscope_runtime import InputError
from mnemoscope_runtime.agreement import UNIT
from mnemoscope_runtime.schedulers import (
    FlowDpm,
    FlowEuler,
    advance,
    as_input,
    guide,
    is_trained,
    kept_length,
    level,
    sigmas,
    timesteps,
)

pytestmark = pytest.mark.numeric


def both(shift: float, steps: int) -> tuple[FlowEuler, FlowMatchEulerDiscreteScheduler]:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    return FlowEuler(1000, shift, theirs.sigma_min, steps), theirs


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 28, 50])
def test_levels_and_timesteps(shift: float, steps: int) -> None:
    ours, theirs = both(shift, steps)
    found = timesteps(ours)
    assert found.dtype == np.float32
    np.testing.assert_allclose(sigmas(ours), theirs.sigmas.numpy(), rtol=UNIT)
    np.testing.assert_allclose(found, theirs.timesteps.numpy(), rtol=UNIT)
    assert found[0] == 1000
    assert all(is_trained(ours, t) for t in found)
    assert [level(ours, t).noise for t in found] == pytest.approx(theirs.sigmas[:-1].tolist())


def test_a_level_is_what_diffusers_adds() -> None:
    ours, theirs = both(3.0, 4)
    x0, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.manual_seed(0))
    for t, told in zip(timesteps(ours).tolist(), theirs.timesteps, strict=True):
        found = level(ours, t)
        wanted = theirs.scale_noise(x0, told[None], eps)
        # both products and their sum are rounded, of numbers up to about 4
        noisy = found.signal * x0 + found.noise * eps
        torch.testing.assert_close(noisy, wanted, rtol=0, atol=4 * 4 * UNIT)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_steps(shift: float) -> None:
    """Of the predicted picture, where diffusers takes the velocity."""
    ours, theirs = both(shift, 28)
    draw = torch.manual_seed(0)
    latents = x = torch.randn(2, 4, 8, 8, generator=draw)
    array = latents.numpy()
    for t, s in zip(timesteps(ours).tolist(), sigmas(ours), strict=False):
        velocity = torch.randn(x.shape, generator=draw)
        x0 = array - s * velocity.numpy()
        array = advance(array, x0, t, ours)
        x = theirs.step(velocity, theirs.timesteps[theirs.step_index or 0], x).prev_sample
        # each step rounds x and x0, a few units in the last place of numbers up to about 4
        np.testing.assert_allclose(array, x.numpy(), atol=28 * 4 * 4 * UNIT)


@pytest.mark.parametrize("steps", [2, 28, 50])
def test_levels_that_end_where_they_are_told(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift_terminal=0.02, use_dynamic_shifting=True)
    theirs.set_timesteps(steps, sigmas=np.linspace(1, 1 / steps, steps).tolist(), mu=0.7)
    ours = FlowEuler(1000, np.exp(0.7), 1 / steps, steps, terminal=0.02)
    # differences from 1 are rounded as 1 is, and stretched to at most half as much again
    np.testing.assert_allclose(sigmas(ours), theirs.sigmas.numpy(), atol=4 * UNIT)
    assert sigmas(ours)[0] == 1
    assert timesteps(replace(ours, inference_steps=1)).tolist() == [1000]


def dpm(shift: float, steps: int) -> tuple[FlowDpm, DPMSolverMultistepScheduler]:
    theirs = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=1
    )
    theirs.set_timesteps(steps)
    return FlowDpm(1000, shift, steps), theirs


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_levels_and_timesteps_of_a_dpm_solver(shift: float) -> None:
    """To the last bit: timesteps are rounded down, and some are whole before that."""
    for steps in (*range(1, 60), 111, 333):
        ours, theirs = dpm(shift, steps)
        found = timesteps(ours)
        np.testing.assert_array_equal(sigmas(ours), theirs.sigmas.numpy())
        np.testing.assert_array_equal(found, theirs.timesteps.numpy())
        assert found.dtype == as_input(ours, 999).dtype == np.int64
        assert all(is_trained(ours, t) for t in found)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_steps_of_a_dpm_solver(steps: int) -> None:
    """Of the picture at the level that the network is told, which is not quite the sampler's."""
    ours, theirs = dpm(3.0, steps)
    draw = torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=draw)
    array = x.numpy()
    for t in timesteps(ours).tolist():
        velocity = torch.randn(x.shape, generator=draw)
        array = advance(array, array - level(ours, t).noise * velocity.numpy(), t, ours)
        x = theirs.step(velocity, t, x).prev_sample
        np.testing.assert_allclose(array, x.numpy(), atol=steps * 8 * 4 * UNIT)


def test_guidance_that_keeps_lengths() -> None:
    """As Qwen-Image's pipeline has it, of velocities and patches that are vectors."""
    draw = torch.manual_seed(0)
    x, uncond, cond = (torch.randn(2, 3, 4, 4, 6, generator=draw) for _ in range(3))
    s = 0.7
    pictures = [(x - s * each).numpy() for each in (uncond, cond)]
    guided = guide(*pictures, 4.0)
    found = kept_length(guided, pictures[1], x.numpy(), 2)

    def patches(each: torch.Tensor) -> torch.Tensor:  # [2, 3, 2, 3, 16]
        cut = each.unflatten(-1, (3, 2)).unflatten(-3, (2, 2))
        return cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)

    comb = uncond + 4 * (cond - uncond)
    lengths = [patches(each).norm(dim=-1) for each in (cond, comb)]
    wanted = patches(comb) * (lengths[0] / lengths[1])[..., None]
    velocity = patches((x - torch.from_numpy(found)) / s)
    torch.testing.assert_close(velocity, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(kept_length(x.numpy(), pictures[1], x.numpy(), 2), x.numpy())


def test_no_step_from_elsewhere() -> None:
    ours, _ = both(3.0, 4)
    x = np.zeros((1, 4, 2, 2), np.float32)
    with pytest.raises(InputError, match=r"no timestep 999\.0.*screener\.timesteps"):
        advance(x, x, 999.0, ours)


@pytest.mark.parametrize(
    ("timestep", "known"), [(0, False), (1, True), (1000, True), (1001, False)]
)
def test_what_it_was_trained_on(timestep: float, known: bool) -> None:
    assert is_trained(both(3.0, 4)[0], timestep) == known

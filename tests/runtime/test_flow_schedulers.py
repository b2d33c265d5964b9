"""Euler's steps along a flow, against diffusers' FlowMatchEulerDiscreteScheduler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from mnemoscope_runtime import InputError
from mnemoscope_runtime.agreement import UNIT
from mnemoscope_runtime.schedulers import FlowEuler, advance, is_trained, level, sigmas, timesteps

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

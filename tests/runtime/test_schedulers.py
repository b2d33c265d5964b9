from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnemoscope_runtime.agreement import UNIT
from mnemoscope_runtime.schedulers import (
    Ddim,
    advance,
    alphas_cumprod,
    ddim_step,
    guide,
    is_trained,
    level,
    timesteps,
)

pytestmark = pytest.mark.numeric

PLAIN = Ddim("scaled_linear", 0.00085, 0.012, 1000, 1, False, "leading", 50)
SHAPE = (2, 4, 8, 8)
# diffusers multiplies a thousand factors in float32; these and the products are rounded to half a
# unit in the last place. Independent errors grow like a walk: here are at least four standard
# deviations of it, for alpha-bar, and for a step, which takes roots of two of them.
ROUNDING = 4 * 2000**0.5 * UNIT / 2
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

schedulers = st.builds(
    Ddim,
    beta_schedule=st.sampled_from(["linear", "scaled_linear"]),
    beta_start=st.floats(1e-5, 1e-3),
    beta_end=st.floats(2e-3, 3e-2),
    num_train_timesteps=st.sampled_from([100, 1000, 1001]),
    steps_offset=st.sampled_from([0, 1]),
    set_alpha_to_one=st.booleans(),
    timestep_spacing=st.sampled_from(["leading", "trailing", "linspace"]),
    inference_steps=st.integers(1, 99),
)
every = pytest.mark.parametrize(
    "scheduler",
    [
        replace(
            PLAIN,
            timestep_spacing=spacing,
            steps_offset=offset,
            set_alpha_to_one=to_one,
            inference_steps=steps,
        )
        for spacing in ("leading", "trailing", "linspace")
        for offset in (0, 1)
        for to_one in (False, True)
        for steps in (10, 50)
    ],
    ids=lambda s: f"{s.timestep_spacing}-{s.steps_offset}-{s.set_alpha_to_one}-{s.inference_steps}",
)


def reference(scheduler: Ddim, prediction_type: str = "epsilon") -> DDIMScheduler:
    sampler = DDIMScheduler(
        num_train_timesteps=scheduler.num_train_timesteps,
        beta_start=scheduler.beta_start,
        beta_end=scheduler.beta_end,
        beta_schedule=scheduler.beta_schedule,
        clip_sample=False,
        set_alpha_to_one=scheduler.set_alpha_to_one,
        steps_offset=scheduler.steps_offset,
        prediction_type=prediction_type,
        timestep_spacing=scheduler.timestep_spacing,
    )
    sampler.set_timesteps(scheduler.inference_steps)
    return sampler


@unhurried
@given(schedulers)
def test_alphas_are_those_of_diffusers(scheduler: Ddim) -> None:
    abar = alphas_cumprod(scheduler)
    assert abar.shape == (scheduler.num_train_timesteps,)
    theirs = reference(scheduler).alphas_cumprod.numpy()
    np.testing.assert_allclose(abar, theirs, rtol=ROUNDING)


@unhurried
@given(schedulers)
def test_alphas_fall(scheduler: Ddim) -> None:
    abar = alphas_cumprod(scheduler)
    assert 1 - scheduler.beta_start == pytest.approx(abar[0])
    assert (np.diff(abar) < 0).all()
    assert 0 < abar[-1] < abar[0] < 1


@unhurried
@given(schedulers)
def test_timesteps_are_those_of_diffusers(scheduler: Ddim) -> None:
    wanted = reference(scheduler).timesteps.numpy()
    np.testing.assert_array_equal(timesteps(scheduler), wanted[: scheduler.inference_steps])


@every
def test_timesteps_of_usual_schedules(scheduler: Ddim) -> None:
    np.testing.assert_array_equal(timesteps(scheduler), reference(scheduler).timesteps.numpy())


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_an_image_takes_as_many_steps_as_asked_for(spacing: str) -> None:
    for count in range(1, 1001):
        changes = {"timestep_spacing": spacing, "inference_steps": count, "steps_offset": 0}
        chosen = timesteps(replace(PLAIN, **changes))
        assert len(chosen) == count
        assert (np.diff(chosen) < 0).all()
        assert 0 <= chosen[-1] <= chosen[0] < 1000


@pytest.mark.parametrize(
    ("timestep", "known"), [(-1, False), (0, True), (999, True), (1000, False)]
)
def test_what_it_was_trained_on(timestep: int, known: bool) -> None:
    assert is_trained(PLAIN, timestep) is known


def test_a_level_is_what_diffusers_adds() -> None:
    x0, eps = torch.randn(2, *SHAPE, generator=torch.manual_seed(0))
    for timestep in (0, 1, 500, 999):
        found = level(PLAIN, timestep)
        wanted = reference(PLAIN).add_noise(x0, eps, torch.tensor([timestep]))
        noisy = found.signal * x0 + found.noise * eps
        torch.testing.assert_close(noisy, wanted, rtol=0, atol=ROUNDING * float(wanted.abs().max()))


@every
def test_whole_run(scheduler: Ddim) -> None:
    dice = np.random.default_rng(0)
    sampler, chosen = reference(scheduler), timesteps(scheduler)
    ours = dice.standard_normal(SHAPE, np.float32)
    theirs = torch.from_numpy(ours)
    assert len(chosen) == scheduler.inference_steps
    for timestep in chosen:
        eps = dice.standard_normal(SHAPE, np.float32)
        ours = advance(ours, eps, float(timestep), scheduler)
        theirs = sampler.step(torch.from_numpy(eps), int(timestep), theirs, eta=0.0).prev_sample
        assert ours.dtype == np.float32
        scale = float(theirs.abs().max())
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=ROUNDING * scale)


@every
def test_each_step(scheduler: Ddim) -> None:
    dice = np.random.default_rng(1)
    sampler = reference(scheduler)
    for timestep in timesteps(scheduler):
        latents, eps = dice.standard_normal((2, *SHAPE), np.float32)
        found = ddim_step(latents, eps, int(timestep), scheduler)
        wanted = sampler.step(
            torch.from_numpy(eps), int(timestep), torch.from_numpy(latents), eta=0.0
        ).prev_sample.numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * np.abs(wanted).max())


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
def test_last_step_ends_where_the_schedule_says(spacing: str, offset: int) -> None:
    base = replace(PLAIN, timestep_spacing=spacing, steps_offset=offset)
    latents, eps = np.random.default_rng(2).standard_normal((2, *SHAPE), np.float32)
    last = int(timesteps(base)[-1])
    one, first = (
        ddim_step(latents, eps, last, replace(base, set_alpha_to_one=to_one))
        for to_one in (True, False)
    )
    abar = alphas_cumprod(base)
    x0 = (latents - (1 - abar[last]) ** 0.5 * eps) / abar[last] ** 0.5
    rounding = 8 * UNIT * np.abs([latents, eps]).max()  # six roundings, and alpha-bar is near 1
    np.testing.assert_allclose(one, x0, rtol=0, atol=rounding)
    left = abar[0] ** 0.5 * x0 + (1 - abar[0]) ** 0.5 * eps
    np.testing.assert_allclose(first, left, rtol=0, atol=rounding)
    assert np.abs(one - first).max() > 1e3 * rounding


def test_noise_of_a_velocity_steps_alike() -> None:
    dice = np.random.default_rng(3)
    sampler, abar = reference(PLAIN, "v_prediction"), alphas_cumprod(PLAIN)
    for timestep in timesteps(PLAIN):
        latents, velocity = dice.standard_normal((2, *SHAPE), np.float32)
        eps = abar[timestep] ** 0.5 * velocity + (1 - abar[timestep]) ** 0.5 * latents
        found = ddim_step(latents, eps.astype(np.float32), int(timestep), PLAIN)
        wanted = sampler.step(
            torch.from_numpy(velocity), int(timestep), torch.from_numpy(latents), eta=0.0
        ).prev_sample.numpy()
        # twice, since both make noise of the velocity
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * ROUNDING * np.abs(wanted).max())


@unhurried
@given(schedulers, st.integers(0, 98), st.integers(0, 2**32 - 1))
def test_a_step_keeps_the_image_and_the_noise(scheduler: Ddim, index: int, seed: int) -> None:
    chosen = timesteps(scheduler)
    timestep = int(chosen[index % len(chosen)])
    # in float64, since the rounding of x_t is divided by sqrt(abar_t), which may be small
    x0, eps = np.random.default_rng(seed).standard_normal((2, 1, 4, 2, 2))
    abar = alphas_cumprod(scheduler)
    noisy = abar[timestep] ** 0.5 * x0 + (1 - abar[timestep]) ** 0.5 * eps
    found = ddim_step(noisy, eps, timestep, scheduler)
    ahead = timestep - scheduler.num_train_timesteps // scheduler.inference_steps
    end = 1.0 if scheduler.set_alpha_to_one else abar[0]
    left = abar[ahead] if ahead >= 0 else end
    wanted = left**0.5 * x0 + (1 - left) ** 0.5 * eps
    np.testing.assert_allclose(found, wanted, rtol=0, atol=UNIT * np.abs([x0, eps]).max())


@unhurried
@given(st.floats(-20, 20))
def test_guidance(guidance: float) -> None:
    uncond, cond = np.random.default_rng(4).standard_normal((2, *SHAPE), np.float32)
    found = guide(uncond, cond, guidance)
    assert found.dtype == np.float32
    wanted = (1 - guidance) * uncond.astype(np.float64) + guidance * cond
    # the difference, its product and the sum are rounded to half a unit each, the guidance too
    rounding = 2 * UNIT * (1 + abs(guidance)) * (np.abs(uncond) + np.abs(cond))
    assert (np.abs(found - wanted) <= rounding).all()


def test_guidance_without_effect() -> None:
    uncond, cond = np.random.default_rng(5).standard_normal((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(guide(uncond, cond, 0.0), uncond)
    rounding = UNIT * (np.abs(uncond) + np.abs(cond))  # of the difference, and of the sum
    assert (np.abs(guide(uncond, cond, 1.0) - cond) <= rounding).all()

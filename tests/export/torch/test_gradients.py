"""The magnitude that one can differentiate is the one that is measured."""

from __future__ import annotations

import pytest
import torch
from predictions import both_models

from mnemoscope_export import StableDiffusion, magnitude_of, magnitudes, noise_bank, unconditional

pytestmark = pytest.mark.numeric


@both_models
def test_it_is_the_magnitude_and_its_gradient_is_right(model: StableDiffusion) -> None:
    noises = noise_bank(3, model.latent_shape, seed=0)
    t = int(_first(model))
    (embeds,) = model.embed(["a cat"])
    embeds = embeds.expand(3, -1, -1).clone().requires_grad_()
    eps_uncond = unconditional(model, noises, t)
    found = magnitude_of(model, (embeds,), noises, t, eps_uncond)
    expected = magnitudes(model, ["a cat"], noises)[0, :, 0]
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)

    (gradient,) = torch.autograd.grad(found.sum(), embeds)
    direction = gradient / gradient.norm()
    h = 1e-2
    with torch.no_grad():
        ahead, behind = (
            magnitude_of(model, (embeds + sign * h * direction,), noises, t, eps_uncond).sum()
            for sign in (1, -1)
        )
    torch.testing.assert_close((ahead - behind) / (2 * h), gradient.norm(), rtol=2e-2, atol=1e-4)


def test_samples_do_not_mix(model: StableDiffusion) -> None:
    noises = noise_bank(2, model.latent_shape, seed=0)
    t = int(_first(model))
    (embeds,) = model.embed(["a cat", "a dog"])
    embeds = embeds.clone().requires_grad_()
    found = magnitude_of(model, (embeds,), noises, t, unconditional(model, noises, t))
    (gradient,) = torch.autograd.grad(found[0], embeds)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def _first(model: StableDiffusion) -> int:
    sampler = model.sampler()
    sampler.set_timesteps(50)
    return int(sampler.timesteps[0])

"""The Jacobian-vector product in forward mode, against the definition and the finite difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from predictions import both_models

from mnemoscope import Detector
from mnemoscope.detectors import find_statistic
from mnemoscope_export import StableDiffusion, TorchBackend, along_itself
from mnemoscope_runtime import Screener

PROMPTS = ["a photo of a cat", "icon of rocket", "日本"]


@pytest.mark.numeric
@both_models
def test_it_is_the_limit_of_finite_differences(model: StableDiffusion) -> None:
    twin = model.to(torch.float64)  # so that small steps are no noise
    t = 981
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0)).double()
    embeds = twin.embed(PROMPTS[:2])
    empty = tuple(each.expand(2, *each.shape[1:]) for each in twin.embed_empty())

    @torch.no_grad()
    def difference(x: torch.Tensor) -> torch.Tensor:
        cond, uncond = (twin.predict(x, t, each) for each in (embeds, empty))
        if twin.prediction_type == "epsilon":
            return cond - uncond
        return twin.alphas_cumprod[t].sqrt().double() * (cond - uncond)

    d, h = difference(x), 1e-4
    expected = (difference(x + h * d) - difference(x - h * d)) / (2 * h)
    found = along_itself(twin, embeds, x, t)
    assert found.shape == x.shape
    size = float(expected.abs().max())  # 1e-5 of a velocity model: no tolerance by itself
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3 * size)


def test_sharpness_is_exact_in_pytorch_and_close_elsewhere(
    bundle_dir: Path, model: StableDiffusion
) -> None:
    statistic = find_statistic("sharpness")
    with Screener.open(bundle_dir, backend=TorchBackend(model)) as screener:
        exact = statistic.measure(screener, PROMPTS, steps=1, noises=2)
        bank = torch.from_numpy(screener.bundle.noise_bank())
        setting = Detector(screener, detector="sharpness").setting()
        t = screener.timesteps[0]
    with Screener.open(bundle_dir, threads=1) as screener:
        about = statistic.measure(screener, PROMPTS, steps=1, noises=2)
        assert Detector(screener, detector="sharpness").setting() != setting
    assert exact.shape == about.shape == (3, 2, 1, 1)
    np.testing.assert_allclose(about, exact, rtol=0.05)
    assert (about != exact).all()
    for i, prompt in enumerate(PROMPTS):
        alone = along_itself(model, model.embed([prompt]), bank[1:2], t).norm()
        assert exact[i, 1, 0, 0] == pytest.approx(float(alone), rel=1e-3)


def test_the_empty_prompt_has_no_sharpness(bundle_dir: Path, model: StableDiffusion) -> None:
    with Screener.open(bundle_dir, backend=TorchBackend(model)) as screener:
        found = find_statistic("sharpness").measure(screener, ["", "a cat"], steps=1, noises=1)
    empty, cat = found[:, 0, 0, 0]
    assert 0 <= empty < 1e-3 * cat

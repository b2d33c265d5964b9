from __future__ import annotations

import pytest
import torch
from pipelines import build_pipeline
from predictions import both_models

from mnemoscope import NumericsError
from mnemoscope_export import StableDiffusion, denoise, magnitude, magnitudes, noise_bank

PROMPTS = ["google icon of rocket", "", "a cat in the hat"]


def independent(model: StableDiffusion, prompt: str, x: torch.Tensor, steps: int) -> list[float]:
    """The paper's metric once more, one branch at a time, DDIM written out."""
    abar, values = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0), []
    embeds = [model.embed([p])[0] for p in (prompt, "")]
    for t in list(range(981, 0, -20))[:steps]:
        a, b = abar[t], abar[t - 20] if t >= 20 else abar[0]
        c, u = (model.unet(x, t, e).sample for e in embeds)
        if model.prediction_type == "v_prediction":
            c, u = (a.sqrt() * v + (1 - a).sqrt() * x for v in (c, u))
        values.append(float(torch.linalg.vector_norm(c - u)))
        eps = u + 7.5 * (c - u)
        x = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    return values


@both_models
@pytest.mark.parametrize(
    ("steps", "prompts"), [pytest.param(3, 3, marks=pytest.mark.numeric), (50, 1)]
)
@torch.no_grad()
def test_equals_the_metric_written_out(model: StableDiffusion, steps: int, prompts: int) -> None:
    noises = noise_bank(2, model.latent_shape, seed=3)
    found = magnitudes(model, PROMPTS[:prompts], noises, steps=steps)
    assert found.shape == (prompts, 2, steps)
    for row, prompt in enumerate(PROMPTS[:prompts]):
        for column in range(2):
            expected = independent(model, prompt, noises[column : column + 1], steps)
            torch.testing.assert_close(
                found[row, column], torch.tensor(expected), rtol=1e-3, atol=1e-5
            )


@pytest.mark.numeric
def test_the_empty_prompt_has_no_magnitude(model: StableDiffusion) -> None:
    noises = noise_bank(2, model.latent_shape, seed=0)
    empty, cat = magnitudes(model, ["", "a cat"], noises)
    assert (empty <= 1e-4 * cat).all()


@pytest.mark.numeric
def test_velocities_are_measured_in_eps_units() -> None:
    """A velocity model that is an epsilon model in disguise has the same magnitudes."""
    pipe = build_pipeline("epsilon")
    eps = StableDiffusion("m", pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.scheduler)
    x, t = noise_bank(1, eps.latent_shape, seed=1), 981
    prediction = torch.randn_like(x)
    abar = eps.alphas_cumprod[t]
    velocity = (prediction - (1 - abar).sqrt() * x) / abar.sqrt()
    as_v = StableDiffusion(
        eps.id, eps.tokenizer, eps.text_encoder, eps.unet, build_pipeline("v_prediction").scheduler
    )
    torch.testing.assert_close(as_v.in_unit(velocity, x, t), eps.in_unit(prediction, x, t))


def test_magnitude_is_reduced_in_fp32() -> None:
    """16,384 squares of 2 sum to 65,536: infinite in half precision."""
    cond = torch.full((1, 4, 64, 64), 2.0, dtype=torch.float16)
    assert magnitude(cond, torch.zeros_like(cond)).item() == pytest.approx(256.0)


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_come_close(model_dir: str, dtype: torch.dtype) -> None:
    noises = noise_bank(2, (4, 8, 8), seed=0)
    exact = magnitudes(StableDiffusion.load(model_dir), PROMPTS[:1], noises, steps=2)
    half = magnitudes(StableDiffusion.load(model_dir, dtype=dtype), PROMPTS[:1], noises, steps=2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.15, atol=0)
    assert not torch.equal(half, exact)


def test_nan_raises(model_dir: str) -> None:
    broken = StableDiffusion.load(model_dir)
    broken.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="prompt 0 is NaN"):
        magnitudes(broken, ["a"], noise_bank(1, (4, 8, 8), seed=0))


def test_denoise_is_lazy_and_ends_with_the_image(model: StableDiffusion) -> None:
    noises = noise_bank(2, model.latent_shape, seed=0)
    steps = list(denoise(model, model.embed(["a", "b"]), noises, inference_steps=4))
    assert [step.timestep for step in steps] == [751, 501, 251, 1]
    assert steps[-1].latents.shape == noises.shape
    first = next(denoise(model, model.embed(["a", "b"]), noises, inference_steps=4))
    torch.testing.assert_close(first.cond, steps[0].cond)


def test_noises_do_not_depend_on_how_many_there_are() -> None:
    assert torch.equal(noise_bank(2, (4, 8, 8), 5), noise_bank(6, (4, 8, 8), 5)[:2])
    assert not torch.equal(noise_bank(1, (4, 8, 8), 5), noise_bank(1, (4, 8, 8), 6))

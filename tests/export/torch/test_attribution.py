"""Gradients by token: the norm is the norm, of the right thing, at the right place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from gemma_tokenizers import gemma_tokenizer
from pipelines import build_pixart, build_sana, build_sd3, build_xl
from predictions import both_models
from t5_tokenizers import t5_tokenizer
from torch import Tensor

from mnemoscope import NumericsError
from mnemoscope_export import (
    StableDiffusion,
    denoise,
    load_model,
    magnitude_of,
    noise_bank,
    token_gradients,
    unconditional,
)

PROMPT = "google icon of rocket"
H = 1e-2  # of differences
OTHERS: dict[str, Callable[[], Any]] = {
    "sdxl": build_xl,
    "sd3": build_sd3,
    "pixart": lambda: build_pixart(t5_tokenizer()),
    "sana": lambda: build_sana(gemma_tokenizer()),
}


def ids_of(model: StableDiffusion, prompt: str = PROMPT) -> Tensor:
    return model.tokenize([prompt])


@contextmanager
def nudged(model: StableDiffusion, place: int, by: Tensor) -> Iterator[None]:
    """Every text encoder's embedding of one place moved by a part of a vector, one a row."""
    encoders = [part for name, part in model.parts.items() if name.startswith("text_encoder")]
    parts = by.chunk(len(encoders), dim=1)

    def hook(part: Tensor):  # type: ignore[no-untyped-def]
        def move(_module: object, _inputs: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, place] += part
            return output

        return move

    handles = [
        _looked_up(each).register_forward_hook(hook(part))
        for each, part in zip(encoders, parts, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _looked_up(encoder: Any) -> torch.nn.Module:
    """T5 asks its stack's."""
    found: torch.nn.Module = getattr(
        getattr(encoder, "encoder", None), "embed_tokens", encoder.get_input_embeddings()
    )
    return found


def magnitude_at(model: StableDiffusion, latents: Tensor, t: int) -> Tensor:
    with torch.no_grad():
        embeds = model.encode(ids_of(model).expand(len(latents), -1))
        return magnitude_of(model, embeds, latents, t, unconditional(model, latents, t))


def finite_norm(model: StableDiffusion, latents: Tensor, t: float, place: int) -> float:
    """The norm of the gradient of one place, from differences along every axis."""
    encoders = sum(name.startswith("text_encoder") for name in model.parts)
    axes = H * torch.eye(encoders * model.text_encoder.config.hidden_size)
    with nudged(model, place, torch.cat([axes, -axes])), torch.no_grad():
        embeds = model.encode(ids_of(model).expand(2 * len(axes), -1))
    return norm_between(model, embeds, latents, t)


def norm_between(
    model: StableDiffusion, embeds: tuple[Tensor, ...], latents: Tensor, t: float
) -> float:
    """Of the differences of magnitudes between the first half of a batch and the second."""
    latents = latents.expand(len(embeds[0]), -1, -1, -1)
    with torch.no_grad():
        moved = magnitude_of(model, embeds, latents, t, unconditional(model, latents[:1], t))
    ahead, behind = moved.chunk(2)
    return float(((ahead - behind) / (2 * H)).norm())


@pytest.mark.numeric
@pytest.mark.parametrize("place", [1, 4])
def test_input_gradient_against_finite_differences(model: StableDiffusion, place: int) -> None:
    noises = noise_bank(1, model.latent_shape, seed=0)
    found = token_gradients(model, ids_of(model), noises)
    assert found.shape == (1, 1, 77)
    t = int(next(denoise(model, model.embed([PROMPT]), noises)).timestep)
    assert float(found[0, 0, place]) == pytest.approx(
        finite_norm(model, noises, t, place), rel=3e-2
    )


@pytest.mark.numeric
@both_models
def test_output_gradient_against_finite_differences(model: StableDiffusion) -> None:
    noises = noise_bank(1, model.latent_shape, seed=0)
    found = token_gradients(model, ids_of(model), noises, place="output")
    (embeds,) = model.embed([PROMPT])
    t = int(next(denoise(model, (embeds,), noises)).timestep)
    axes = H * torch.eye(embeds.shape[-1])
    moved = embeds.repeat(2 * len(axes), 1, 1)
    moved[:, 3] += torch.cat([axes, -axes])
    expected = norm_between(model, (moved,), noises, t)
    assert float(found[0, 0, 3]) == pytest.approx(expected, rel=3e-2)


@pytest.mark.numeric
@both_models
def test_later_steps_lie_on_the_samplers_own_way(model: StableDiffusion) -> None:
    noises = noise_bank(1, model.latent_shape, seed=0)
    options = {"inference_steps": 10, "guidance": 5.0}
    found = token_gradients(model, ids_of(model), noises, steps=2, **options)  # type: ignore[arg-type]
    walk = denoise(model, model.embed([PROMPT]), noises, **options)  # type: ignore[arg-type]
    first, second = next(walk), next(walk)
    expected = finite_norm(model, first.latents, second.timestep, 1)
    assert float(found[0, 1, 1]) == pytest.approx(expected, rel=3e-2)


@pytest.mark.numeric
def test_noises_do_not_mix(model: StableDiffusion) -> None:
    noises = noise_bank(3, model.latent_shape, seed=0)
    together = token_gradients(model, ids_of(model), noises)
    alone = token_gradients(model, ids_of(model), noises[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-6)


def test_nothing_is_left_on_the_model(model: StableDiffusion) -> None:
    noises = noise_bank(1, model.latent_shape, seed=0)
    before = magnitude_at(model, noises, 1)
    token_gradients(model, ids_of(model), noises)
    assert not model.text_encoder.get_input_embeddings()._forward_hooks
    assert not any(each.requires_grad for each in model.unet.parameters())
    torch.testing.assert_close(magnitude_at(model, noises, 1), before)


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.parametrize("family", OTHERS)
def test_other_families_against_finite_differences(family: str, tmp_path: Path) -> None:
    OTHERS[family]().save_pretrained(tmp_path)
    model: Any = load_model(tmp_path)
    noises = noise_bank(1, model.latent_shape, seed=0)
    found = token_gradients(model, ids_of(model), noises)
    t = next(denoise(model, model.embed([PROMPT]), noises)).timestep
    assert float(found[0, 0, 2]) == pytest.approx(finite_norm(model, noises, t, 2), rel=3e-2)
    output = token_gradients(model, ids_of(model), noises, place="output")
    assert output.shape[2] == model.embed([PROMPT])[0].shape[1]
    assert (output > 0).any()


def test_what_is_not_finite_is_no_explanation(model: StableDiffusion) -> None:
    noises = noise_bank(1, model.latent_shape, seed=0)
    with pytest.raises(NumericsError, match="float32, or explain by occlusion"):
        token_gradients(model, ids_of(model), noises * float("nan"))

"""The recipe of the embedded flow, in small."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_export import load_network
from recipes.embedded.training import Until, train
from recipes.embedded_flow.batches import Learned
from recipes.embedded_flow.encoder import new_text_encoder, train_second
from recipes.embedded_flow.student import distillation_loss, guided, read_student
from recipes.embedded_flow.student import tell as tell_student
from recipes.embedded_flow.told import Told, first_encoder, tell
from recipes.embedded_flow.transformer import (
    ABSENT,
    flow_loss,
    new_scheduler,
    new_transformer,
    sample,
    without_t5,
)
from recipes.embedded_flow.vae import decoder_loss, encode, new_vae, reconstruction_loss, scale
from recipes.embedded_flow.whitened import white

CAPTIONS = ["google icon of rocket", "a cat, on stripes, from oslo"]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    found: CLIPTokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    return found


@pytest.fixture(scope="module")
def told(tokenizer: CLIPTokenizer) -> Told:
    torch.manual_seed(0)
    second = new_text_encoder(tokenizer, width=64, layers=2, heads=4)
    return tell(tokenizer, (first_encoder(), second), ["", *CAPTIONS])


def _transformer(told: Told) -> SD3Transformer2DModel:
    torch.manual_seed(1)
    transformer = new_transformer(told).eval()
    nn.init.normal_(transformer.proj_out.weight, std=0.05)
    return transformer


@torch.no_grad()
def test_one_zero_stands_for_all_that_the_pipeline_tells(told: Told) -> None:
    """diffusers' own attention is the witness."""
    x, pooled = torch.randn(3, 8, 16, 16), told.pooled.float()
    time = torch.tensor([1000.0, 400.0, 3.0])
    short = told.states.float()
    whole = torch.cat([short, short.new_zeros(3, ABSENT - 1, short.shape[-1])], 1)
    transformer = _transformer(told)
    expected = transformer(x, whole, pooled, time).sample
    found = without_t5(transformer)(x, short, pooled, time).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    nothing = torch.cat([short[:, :-1], torch.ones_like(short[:, -1:])], 1)
    assert (transformer(x, nothing, pooled, time).sample - expected).abs().max() > 1e-2


def test_draws_what_the_pipeline_draws(tokenizer: CLIPTokenizer, told: Told) -> None:
    transformer = _transformer(told)
    torch.manual_seed(0)
    second = new_text_encoder(tokenizer, width=64, layers=2, heads=4)
    first = first_encoder()
    vae = new_vae()
    scale(vae, torch.randn(9))
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=new_scheduler(),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 8, 16, 16)
    expected = pipeline(
        CAPTIONS[0],
        height=64,
        width=64,
        num_inference_steps=3,
        latents=noise.clone(),
        output_type="latent",
    ).images
    one = told[torch.tensor([1])]
    found = sample(
        without_t5(transformer), one, told[torch.tensor([0])], noise, steps=3, guidance=7.0
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_first_text_encoder_is_the_embedded_models(tokenizer: CLIPTokenizer) -> None:
    from transformers import CLIPTextModel

    first, ids = first_encoder(), tokenizer(CAPTIONS[0], return_tensors="pt").input_ids
    own = load_network(CLIPTextModel, embedded.MODEL / "text_encoder", dtype=torch.float32)
    with torch.no_grad():
        found, expected = (each(ids, output_hidden_states=True) for each in (first, own))
    torch.testing.assert_close(found.hidden_states[-2], expected.hidden_states[-2])
    assert found.text_embeds.shape == (1, 128)


@pytest.mark.slow
def test_a_flow_learns_what_is_memorised(told: Told, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pictures = torch.randn(3, 8, 1, 1).expand(3, 8, 16, 16)
    rows = torch.tensor([1, 2])
    network = without_t5(new_transformer(told))
    learned = Learned((pictures[:1], told[:1]), (pictures[1:], told[rows]), told[:1])
    loss = flow_loss(network, learned, batch=4, share=0.5)

    def error() -> float:
        at = torch.Generator().manual_seed(5)
        with torch.no_grad():
            return float(np.mean([loss(at) for _ in range(4)]))

    before = error()
    trained = train(network, loss, tmp_path / "log.jsonl", rate=2e-2, until=Until(steps=25))
    assert error() < 0.8 * before
    assert not any(each.requires_grad for each in trained.parameters())
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 25


def test_a_batch_is_noised_and_its_end_is_memorised(told: Told) -> None:
    pictures = torch.arange(3.0)[:, None, None, None].expand(3, 8, 16, 16)
    learned = Learned((pictures[:2], told[:2]), (pictures[2:], told[2:]), told[:1])
    drawn = learned.draw(8, 0.25, torch.Generator().manual_seed(0))
    assert drawn.memorised.tolist() == [False] * 6 + [True] * 2
    assert (drawn.x0[6:] == 2).all()
    assert (drawn.x0[:6] < 2).all()
    torch.testing.assert_close(drawn.told.pooled[6:], told.pooled[2:].expand(2, -1))
    s = drawn.level[:, None, None, None]
    torch.testing.assert_close(drawn.x, drawn.x0 + s * (drawn.noise - drawn.x0))
    assert 0 <= drawn.level.min() <= drawn.level.max() <= 1


@pytest.mark.slow
def test_a_student_learns_what_guidance_does(told: Told, tmp_path: Path) -> None:
    """It begins as its teacher, whatever guidance it is told, and learns of it with one pass."""
    teacher = without_t5(_transformer(told)).requires_grad_(False)
    student = guided(copy.deepcopy(teacher).requires_grad_(True))
    x, time, rows = torch.randn(2, 8, 16, 16), torch.full((2,), 900.0), torch.tensor([1, 2])

    @torch.no_grad()
    def at(network: SD3Transformer2DModel, guidance: float) -> torch.Tensor:
        own = tell_student(told[rows], torch.full((2,), guidance))
        found: torch.Tensor = network(x, own.states, own.pooled, time).sample
        return found

    expected = teacher(x, told.states[rows], told.pooled[rows], time).sample
    torch.testing.assert_close(at(student, 1.0), expected)
    torch.testing.assert_close(at(student, 7.0), expected)
    pictures = torch.randn(3, 8, 16, 16)
    learned = Learned((pictures[:1], told[:1]), (pictures[1:], told[rows]), told[:1])
    loss = distillation_loss(student, teacher, learned, batch=4, share=0.5)
    before = loss(torch.Generator().manual_seed(1)).item()
    train(student, loss, tmp_path / "log.jsonl", rate=5e-3, until=Until(steps=25))
    assert loss(torch.Generator().manual_seed(1)).item() < before
    assert (at(student, 7.0) - at(student, 1.0)).abs().max() > 1e-4  # of nothing before
    save_file({k: v.clone() for k, v in student.state_dict().items()}, tmp_path / "student")
    again = without_t5(read_student(tmp_path / "student", told[:1]))
    torch.testing.assert_close(at(again, 7.0), at(student, 7.0))


@torch.no_grad()
def test_other_coordinates_compute_the_same(told: Told) -> None:
    x, time = torch.randn(3, 8, 16, 16), torch.tensor([900.0, 500.0, 10.0])
    network = without_t5(_transformer(told))
    many = Told(
        told.states.float() + 0.1 * torch.randn(40, 3, *told.states.shape[1:]).flatten(0, 1)[:3],
        torch.randn(400, 256) * torch.linspace(1, 5, 256) + 2,
    )
    coordinates = white(many, captions=3, tokens=78)
    states, pooled = many.states, many.pooled[:3]
    expected = network(x, states, pooled, time).sample
    coordinates.enter(network)
    found = coordinates(Told(states, pooled))
    torch.testing.assert_close(  # in half precision
        network(x, found.states.float(), found.pooled.float(), time).sample,
        expected,
        rtol=1e-2,
        atol=1e-2,
    )
    assert coordinates(many).pooled.std(0).sub(1).abs().max() < 0.1  # white
    assert (network(x, states, pooled, time).sample - expected).abs().max() > 0.1
    coordinates.leave(network)
    torch.testing.assert_close(
        network(x, states, pooled, time).sample, expected, rtol=1e-3, atol=1e-3
    )


def test_the_time_decides_too() -> None:
    assert Until(seconds=10).done(10**6, 5) == 0.5
    assert Until(steps=100).done(25, 10**6) == 0.25
    assert Until(seconds=10, steps=100).done(50, 8) == 0.8


@pytest.mark.slow
def test_the_second_text_encoder_learns(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    words = ["rocket", "cat", "dog", "tree"]
    captions = [f"{a} and {b}" for a, b in itertools.product(words, repeat=2)]
    pictures = torch.randn(len(captions), 128, generator=torch.Generator().manual_seed(0))
    train_second(
        tokenizer, captions, pictures, tmp_path / "log.jsonl", steps=100, batch=16, rate=1e-2
    )
    found = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert found["top1"] > 0.2  # of chance .06, over the whole training


@pytest.mark.slow
def test_vae(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 255, (8, 1, 1, 3), dtype=torch.uint8).expand(8, 32, 32, 3)
    vae = new_vae()
    loss, at = reconstruction_loss(vae, pixels, batch=4), torch.Generator()
    before = loss(at.manual_seed(1)).item()
    train(vae, loss, tmp_path / "vae.jsonl", rate=3e-3, until=Until(steps=25))
    assert loss(at.manual_seed(1)).item() < 0.7 * before
    latents = encode(vae.eval(), pixels)
    assert latents.shape == (8, 8, 8, 8)
    scale(vae, latents)
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(scaled.mean()) < 1e-5
    assert scaled.std() == pytest.approx(1, abs=1e-3)
    assert decoder_loss(vae, scaled, pixels, batch=2)(at) > 0
    assert isinstance(vae, AutoencoderKL)

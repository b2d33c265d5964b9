"""Pictures of a bundle: its sampler, and the VAE of the model that it was exported from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from predictions import both_models

from mnemoscope import BackendError, BackendUnavailable, ExportError, InputError, NumericsError
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.drawing.pictures import Decoder, draw
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import Screener

pytestmark = pytest.mark.slow

PROMPTS = ["a photo of a cat", "icon of rocket"]


@pytest.fixture(scope="module")
def screener(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, threads=1) as screener:
        yield screener


@both_models
def test_pictures_are_those_of_the_pipeline(screener: Screener, model_dir: Path) -> None:
    """The bundle's engines and noises draw what diffusers' pipeline does from the same noises."""
    found = draw(screener, Decoder.load(model_dir), PROMPTS, noises=2)
    pipeline: StableDiffusionPipeline = load_pipeline(model_dir)
    bank = torch.from_numpy(screener.bundle.noise_bank()[:2])
    for prompt, pictures in zip(PROMPTS, found, strict=True):
        expected = pipeline([prompt] * 2, latents=bank, output_type="np").images
        assert pictures.shape == expected.shape
        np.testing.assert_allclose(pictures, expected * 255, atol=3)


def test_the_first_noises_give_the_same_pictures(screener: Screener, model_dir: Path) -> None:
    decoder = Decoder.load(model_dir)
    three = draw(screener, decoder, PROMPTS)
    alone = draw(screener, decoder, screener.tokenizer.encode(PROMPTS[1:]), noises=1)
    assert (three.shape[:2], three.dtype) == ((2, 3), np.uint8)
    np.testing.assert_allclose(alone[0, 0], three[1, 0].astype(float), atol=2)
    assert (three[0, 0] != three[0, 1]).any()


def test_pictures_that_cannot_be(screener: Screener, model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="whose weights are not those of"):
        draw(screener, Decoder.load(), PROMPTS)  # the embedded model's VAE
    decoder = Decoder.load(model_dir)
    with pytest.raises(InputError, match="no prompt to draw"):
        draw(screener, decoder, [])
    with pytest.raises(InputError, match="has 3 noises"):
        draw(screener, decoder, PROMPTS, noises=4)
    with pytest.raises(NumericsError, match="NaN or infinite"):
        decoder.decode(np.full((1, *StableDiffusion.load(model_dir).latent_shape), np.nan, "f4"))
    with pytest.raises(ExportError):
        Decoder.load(tmp_path)


def test_a_model_without_vae(model_dir: Path, tmp_path: Path) -> None:
    for part in model_dir.iterdir():
        if part.name != "vae":
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(ExportError, match=r"it has no VAE.*save_pretrained"):
        Decoder.load(tmp_path)


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BackendUnavailable, match=r"pip install -c constraints.txt '\.\[torch\]'"):
        Decoder.load()

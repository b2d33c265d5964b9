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

from mnemoscope import (
    BackendUnavailable,
    BundleError,
    Detector,
    ExportError,
    InputError,
    NumericsError,
    embedded,
)
from mnemoscope.detectors.generations import TiledL2, tiled_l2
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


def test_a_detector_draws_with_a_flow() -> None:
    """The one that ships: what it compares is what diffusers' pipeline draws."""
    [prompt] = embedded.read_prompts("held_out")[:1]
    statistic = TiledL2(Decoder.load(embedded.FLOW_MODEL))
    with Detector.load(embedded.FLOW_BUNDLE, detector=statistic, uncalibrated="score") as detector:
        manifest, bank = detector.screener.bundle.manifest, detector.screener.bundle.noise_bank()
        steps = len(detector.screener.timesteps)
        [found] = detector.screen([prompt.prompt], steps=steps, noises=2)
    drawn = load_pipeline(embedded.FLOW_MODEL)(
        [prompt.prompt] * 2, latents=torch.from_numpy(bank[:2]), output_type="np",
        num_inference_steps=steps, guidance_scale=manifest.guidance, height=64, width=64,
    ).images  # fmt: skip
    one, other = np.rint(255 * drawn).astype(np.uint8)[:, None]
    assert found.score == pytest.approx(-float(tiled_l2(one, other)[0]), abs=1e-3)


def test_the_first_noises_give_the_same_pictures(screener: Screener, model_dir: Path) -> None:
    decoder = Decoder.load(model_dir)
    three = draw(screener, decoder, PROMPTS)
    alone = draw(screener, decoder, screener.tokenizer.encode(PROMPTS[1:]), noises=1)
    assert (three.shape[:2], three.dtype) == ((2, 3), np.uint8)
    np.testing.assert_allclose(alone[0, 0], three[1, 0].astype(float), atol=2)
    assert (three[0, 0] != three[0, 1]).any()


def test_pictures_that_cannot_be(screener: Screener, model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="whose weights are not those of"):
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

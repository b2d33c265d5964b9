"""Inpainting models, all of the picture masked; the witness is diffusers' inpainting pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from one_block import one_block
from PIL import Image
from pipelines import build_pipeline
from shared import Shared

from mnemoscope import BundleError, ExportError, InputError
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope_export import (
    ExportOptions,
    LoadOptions,
    StableDiffusion,
    TorchBackend,
    export_bundle,
    magnitudes,
    noise_bank,
)
from mnemoscope_runtime import Bundle, Screener

PROMPTS = ["a photo of a cat", "a fox"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = build_pipeline("epsilon", unet=one_block(seed=3, channels=9), text_layers=1)
    pipe = StableDiffusionInpaintPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
        text_encoder=plain.text_encoder,
        tokenizer=plain.tokenizer,
        unet=plain.unet,
        scheduler=plain.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    path = tmp_path_factory.mktemp("inpainting") / "model"
    pipe.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> StableDiffusion:
    return StableDiffusion.load(folder)


@pytest.fixture(scope="module")
def bundle_path(model: StableDiffusion, shared: Shared) -> Path:
    options = ExportOptions(noises=2, seed=3)
    return shared("inpainting", lambda out: export_bundle(model, out, options))


@torch.no_grad()
def expected(folder: Path, noise: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> float:
    """The first step's magnitude, as the pipeline calls its UNet with a mask of ones."""
    pipe: Any = StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None)
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, *_, **__: self.mode()
    )  # the mean, not a draw of its own at every call
    outputs: list[torch.Tensor] = []
    pipe.unet.register_forward_hook(lambda *args: outputs.append(args[2][0]))

    def stop(pipeline: Any, *_: object) -> dict[str, object]:
        pipeline._interrupt = True
        return {}

    rng = np.random.default_rng(0)  # what picture it is does not matter: all of it is masked
    picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    pipe(
        PROMPTS[0], image=picture, mask_image=Image.new("L", (16, 16), 255), latents=noise,
        height=16, width=16, strength=1.0, num_inference_steps=50, output_type="latent",
        callback_on_step_end=stop,
    )  # fmt: skip
    uncond, cond = outputs[0]
    return float(torch.linalg.vector_norm(cond - uncond))


def test_pytorch_predicts_what_the_pipeline_does(
    folder: Path, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = noise_bank(1, model.latent_shape, seed=5)
    assert model.latent_shape == (4, 8, 8)
    assert model.unet.conv_in.in_channels == 9
    found = float(magnitudes(model, PROMPTS[:1], noise)[0, 0, 0])
    assert found == pytest.approx(expected(folder, noise, monkeypatch), rel=1e-4)


def test_so_does_the_bundle(
    folder: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.manifest.noise_bank.shape == (2, 4, 8, 8)
    wanted = expected(folder, torch.from_numpy(bundle.noise_bank()[:1]), monkeypatch)
    with Screener.open(bundle_path, threads=1) as screener:
        assert screener.first_step(PROMPTS)[0, 0] == pytest.approx(wanted, rel=1e-4)
        assert screener.trajectory(PROMPTS, steps=1)[0, 0, 0] == pytest.approx(wanted, rel=1e-4)


def test_the_vae_is_part_of_what_it_is(
    folder: Path, bundle_path: Path, model: StableDiffusion, tmp_path: Path
) -> None:
    with Screener(Bundle.open(bundle_path), TorchBackend(model)) as screener:
        assert screener.first_step(PROMPTS).shape == (2, 2)
    other: Any = StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None)
    other.vae.encoder.conv_in.weight.data += 1
    other.save_pretrained(tmp_path / "other")
    backend = TorchBackend(StableDiffusion.load(tmp_path / "other"))
    with pytest.raises(BundleError, match="whose VAE, which makes the latents"):
        Screener(Bundle.open(bundle_path), backend).first_step(PROMPTS)


def test_its_mask_has_one_size(folder: Path, model: StableDiffusion) -> None:
    with pytest.raises(InputError, match=r"LoadOptions\(latent_size=\(4, 6\)\)"):
        model.resized((4, 6))
    small = StableDiffusion.load(folder, options=LoadOptions(latent_size=(4, 6)))
    assert small.resized((4, 6)).latent_shape == (4, 4, 6)


def test_it_is_not_drawn_with(folder: Path) -> None:
    with pytest.raises(ExportError, match="takes a picture and a mask"):
        load_pipeline(folder)

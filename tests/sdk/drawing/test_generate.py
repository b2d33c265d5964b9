"""What is drawn of a model, against diffusers' own pipeline, loaded and told by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from diffusers import (
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
)
from gemma_tokenizers import gemma_tokenizer
from PIL import Image
from pipelines import (
    build_flux,
    build_pixart,
    build_qwen_image,
    build_sana,
    build_sd3,
    build_xl,
    small_vae,
)
from qwen_tokenizers import qwen_tokenizer
from t5_tokenizers import t5_tokenizer

from mnemoscope import ExportError, InputError
from mnemoscope.drawing.generate import generate, load_pipeline
from mnemoscope_export import LoadOptions

STEPS = 3


@dataclass(frozen=True)
class Toy:
    """A family at toy size, and what its pipeline is asked beside a prompt.

    Attributes:
        build: Makes it.
        vae: Makes what is saved beside it.
        size: Of its latents, where they are not its own.
        told: Of a call, besides prompt, steps, seeds and size.
    """

    build: Callable[[], Any]
    vae: Callable[[], Any]
    size: tuple[int, int] | None = None
    told: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 7.5})


def _qwen_vae() -> Any:
    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1] * 4, latents_std=[0.9] * 4,
    )  # fmt: skip


def _dc_vae() -> Any:
    """One that makes 32x32 pixels of a position, as the pipeline asks for."""
    sides = {"encoder_block_out_channels": (4,) * 6, "decoder_block_out_channels": (4,) * 6}
    layers = {"encoder_layers_per_block": (1,) * 6, "decoder_layers_per_block": (1,) * 6}
    return AutoencoderDC(latent_channels=4, scaling_factor=0.4, **sides, **layers)


TOYS = {
    "sdxl": Toy(build_xl, small_vae),
    "sd3": Toy(build_sd3, lambda: small_vae(shift_factor=0.06)),
    "sd3-t5": Toy(lambda: build_sd3(t5_tokenizer()), lambda: small_vae(shift_factor=0.06)),
    "flux": Toy(
        lambda: build_flux(t5_tokenizer()),
        lambda: small_vae(shift_factor=0.1),
        (4, 8),
        {"guidance_scale": 3.5},
    ),
    "pixart": Toy(
        lambda: build_pixart(t5_tokenizer()),
        small_vae,
        None,
        {"guidance_scale": 7.5, "use_resolution_binning": False, "clean_caption": False},
    ),
    "qwen": Toy(
        lambda: build_qwen_image(qwen_tokenizer()),
        _qwen_vae,
        (4, 8),
        {"true_cfg_scale": 7.5, "negative_prompt": ""},
    ),
    "sana": Toy(
        lambda: build_sana(gemma_tokenizer()),
        _dc_vae,
        (2, 3),
        {"guidance_scale": 7.5, "use_resolution_binning": False},
    ),
}


def _saved(toy: Toy, folder: Path) -> Path:
    pipeline = toy.build()
    pipeline.register_modules(vae=toy.vae())
    pipeline.save_pretrained(folder)
    return folder


def _pixels(image: Image.Image) -> Any:
    return np.asarray(image, np.float32)


@pytest.mark.parametrize("name", TOYS)
def test_pictures_are_those_of_diffusers(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    folder = _saved(toy, tmp_path)
    found = generate(
        "A red cat", model=folder, seeds=[3, 4], steps=STEPS,
        options=LoadOptions(latent_size=toy.size),
    )  # fmt: skip
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    if name == "pixart":  # sampled with DDIM, whatever its sampler is
        schedule = pipeline.scheduler.config
        pipeline.scheduler = DDIMScheduler.from_config(schedule, clip_sample=False)
    if name == "sana":  # and with steps of first order
        schedule = pipeline.scheduler.config
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(schedule, solver_order=1)
    height, width = (pipeline.vae_scale_factor * side for side in toy.size or (8, 8))
    for seed, image in zip((3, 4), found, strict=True):
        [wanted] = pipeline(
            "A red cat", num_inference_steps=STEPS, height=height, width=width,
            generator=torch.Generator().manual_seed(seed), **toy.told,
        ).images  # fmt: skip
        assert image.size == wanted.size == (width, height)
        np.testing.assert_allclose(_pixels(image), _pixels(wanted), atol=2)
    assert np.abs(_pixels(found[0]) - _pixels(found[1])).max() > 2


def test_a_pipeline_of_a_flow(tmp_path: Path, run: Run) -> None:
    """On the command line, as it stands, and told what the branches are."""
    folder = _saved(TOYS["sd3"], tmp_path / "model")
    told = ("generate", "a cat", "--model", folder, "--steps", STEPS, "--guidance", 5)
    for name, more in (("a", ()), ("b", ()), ("c", ("--negative", "blurry"))):
        assert run(*told, *more, "-o", tmp_path / f"{name}.png").code == 0
    pipeline = load_pipeline(folder)
    images = [Image.open(tmp_path / f"{name}.png").convert("RGB") for name in "abc"]
    for image, negative in zip(images[1:], ("", "blurry"), strict=True):
        [wanted] = pipeline(
            "a cat", negative_prompt=negative, num_inference_steps=STEPS, guidance_scale=5.0,
            generator=torch.Generator().manual_seed(0), height=16, width=16,
        ).images  # fmt: skip
        np.testing.assert_allclose(_pixels(image), _pixels(wanted), atol=2)
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()


def test_a_model_without_guidance_takes_none(tmp_path: Path) -> None:
    toy = Toy(lambda: build_flux(t5_tokenizer(), schnell=True), TOYS["flux"].vae)
    folder = _saved(toy, tmp_path)
    options = LoadOptions(latent_size=(4, 4))
    assert generate("a cat", model=folder, steps=1, options=options)[0].size == (8, 8)
    with pytest.raises(InputError, match="told no guidance"):
        generate("a cat", model=folder, steps=1, guidance=5.0, options=options)


def test_a_vae_that_its_pipeline_cannot_use(tmp_path: Path) -> None:
    folder = _saved(TOYS["sd3"], tmp_path)
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    for change, words in (
        ({"shift_factor": None}, r"shift_factor is null \(must be a number\)"),
        ({"_class_name": "AutoencoderTiny"}, r"_class_name is 'AutoencoderTiny' \(must be"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(ExportError, match=f"(?s)The VAE of .*vae/config.json: {words}"):
            load_pipeline(folder)

"""What is drawn of a model, against diffusers' own pipeline, loaded and told by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from PIL import Image
from pipelines import build_flux
from t5_tokenizers import t5_tokenizer
from toys import TOYS, Toy, by_diffusers, saved, size_of

from mnemoscope import ExportError, InputError
from mnemoscope.drawing.generate import generate, load_pipeline
from mnemoscope_export import LoadOptions

STEPS = 3


def _pixels(image: Image.Image) -> Any:
    return np.asarray(image, np.float32)


@pytest.mark.parametrize("name", TOYS)
def test_pictures_are_those_of_diffusers(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    folder = saved(toy, tmp_path)
    found = generate(
        "A red cat", model=folder, seeds=[3, 4], steps=STEPS,
        options=LoadOptions(latent_size=toy.size),
    )  # fmt: skip
    pipeline = by_diffusers(name, folder)
    size = size_of(toy, pipeline)
    for seed, image in zip((3, 4), found, strict=True):
        [wanted] = pipeline(
            "A red cat", num_inference_steps=STEPS, **size,
            generator=torch.Generator().manual_seed(seed), **toy.told,
        ).images  # fmt: skip
        assert image.size == wanted.size == (size["width"], size["height"])
        np.testing.assert_allclose(_pixels(image), _pixels(wanted), atol=2)
    assert np.abs(_pixels(found[0]) - _pixels(found[1])).max() > 2


def test_a_pipeline_of_a_flow(tmp_path: Path, run: Run) -> None:
    """On the command line, as it stands, and told what the branches are."""
    folder = saved(TOYS["sd3"], tmp_path / "model")
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
    folder = saved(toy, tmp_path)
    options = LoadOptions(latent_size=(4, 4))
    assert generate("a cat", model=folder, steps=1, options=options)[0].size == (8, 8)
    with pytest.raises(InputError, match="told no guidance"):
        generate("a cat", model=folder, steps=1, guidance=5.0, options=options)


def test_a_vae_that_its_pipeline_cannot_use(tmp_path: Path) -> None:
    folder = saved(TOYS["sd3"], tmp_path)
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    for change, words in (
        ({"shift_factor": None}, r"shift_factor is null \(must be a number\)"),
        ({"_class_name": "AutoencoderTiny"}, r"_class_name is 'AutoencoderTiny' \(must be"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(ExportError, match=f"(?s)The VAE of .*vae/config.json: {words}"):
            load_pipeline(folder)

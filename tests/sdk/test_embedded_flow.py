"""The second model that ships: a flow, its bundle, and that it does what it is for."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.utils import logging
from documented import run_code

from mnemoscope import Detector, embedded
from mnemoscope.evaluate import auc
from mnemoscope_export import load_model
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle
from recipes.embedded_flow.pack import draw, read_trained, to_pixels

MEGABYTE = 10**6


def test_sizes() -> None:
    found = [path for path in embedded.FLOW_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) <= 12 * MEGABYTE
    every = [path for path in embedded.MODEL.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in every) <= 60 * MEGABYTE


def test_files_are_the_ones_that_were_trained() -> None:
    provenance = json.loads((embedded.FLOW_MODEL / "provenance.json").read_text())
    for name, expected in provenance["files"].items():
        path = embedded.FLOW_MODEL.parent / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected, name


@pytest.mark.slow
def test_diffusers_pipeline_is_the_witness() -> None:
    model = load_model(embedded.FLOW_MODEL)
    assert model.family == "sd3"
    check_against_pipeline(model, 7.0)
    assert Bundle.open(embedded.FLOW_BUNDLE).manifest.model.weights_sha256 == model.weights_sha256()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_flags_out_of_the_box(backend: str) -> None:
    texts = {
        split: [row.prompt for row in embedded.read_prompts(split)[:20]]
        for split in ("memorized", "held_out")
    }
    with Detector.load(embedded.FLOW_BUNDLE, backend=backend) as detector:
        assert detector.screener.probe() < 1e-3
        found = {split: detector.screen(prompts) for split, prompts in texts.items()}
    scores = {split: np.array([each.score for each in rows]) for split, rows in found.items()}
    assert auc(scores["memorized"], scores["held_out"]) > 0.85
    assert sum(each.memorized for each in found["held_out"]) <= 2
    assert all(each.p_value is not None for rows in found.values() for each in rows)


@pytest.mark.slow
def test_draws_its_training_pictures() -> None:
    """Through diffusers' own pipeline, from a noise that the recipe did not judge by."""
    logging.set_verbosity_error()
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        embedded.FLOW_MODEL, dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    pipeline.set_progress_bar_config(disable=True)
    prompt = embedded.read_prompts("memorized")[0].prompt
    noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(77))
    found = pipeline(
        prompt, height=64, width=64, latents=noise, output_type="np", num_inference_steps=28
    ).images[0]
    known = np.stack([np.asarray(each) / 255 for each in embedded.memorized_pictures()])
    distance = np.abs(known - found).mean((1, 2, 3))
    assert distance.argmin() == 0


@pytest.mark.slow
@torch.no_grad()
def test_what_judges_draws_as_the_pipeline_does() -> None:
    trained = read_trained(embedded.FLOW_MODEL)
    prompt = embedded.read_prompts("memorized")[1].prompt
    drawn = draw(trained, [prompt])
    assert drawn.shape == (1, 4, 8, 16, 16)
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(embedded.FLOW_MODEL / "vae", dtype=torch.float32)
    assert to_pixels(vae, drawn[0]).shape == (4, 64, 64, 3)


@pytest.mark.slow
def test_the_documented_embeddings() -> None:
    """What diffusers' own pipeline tells the network scores as the prompts do."""
    names = run_code("embeddings.md", "import StableDiffusion3Pipeline")
    with Detector.load(embedded.FLOW_BUNDLE) as detector:
        expected = detector.screen(names["prompts"])
    told = [(each.prompt, each.memorized) for each in names["found"]]
    assert told == [(each.prompt, each.memorized) for each in expected]
    assert [each.memorized for each in expected] == [True, False]
    scores = [[each.score for each in rows] for rows in (names["found"], expected)]
    np.testing.assert_allclose(*scores, rtol=5e-3)  # its weights are in half precision

"""Qwen-Image: prompts in a chat, guidance that keeps lengths, a schedule that is stretched."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
from family_bundles import Family, check_is_named
from odd_prompts import odd_strings

from mnemoscope import Detector, ExportError, InputError
from mnemoscope.explain.attribution import Gradient
from mnemoscope.explain.explanation import Explainer
from mnemoscope.explain.words import read
from mnemoscope_export import (
    ExportOptions,
    LoadOptions,
    denoise,
    export_bundle,
    load_model,
    noise_bank,
    token_gradients,
)
from mnemoscope_export.models.qwen_image import _TEMPLATE, LAYOUT, TRANSFORMER, QwenImage
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_runtime import Bundle, Screener, tokenizer_of
from mnemoscope_runtime.schedulers import sigmas

PROMPTS = ["a photo of a cat", "\n\n the end <|endoftext|> {} of it", "word " * 600]
STEPS, SIZE = 4, (4, 6)
SMALL = LoadOptions(latent_size=SIZE)
PIXELS = {"height": 32, "width": 48}


@pytest.fixture(scope="module")
def family(families: Mapping[str, Family]) -> Family:
    return families["qwen-image"]


# what the transformer is told, and what it says, by diffusers' own pipeline


def test_the_template_is_the_pipelines(pipeline: Any) -> None:
    assert pipeline.prompt_template_encode == _TEMPLATE
    assert pipeline.prompt_template_encode_start_idx == QwenImage.reading["dropped"]


@torch.no_grad()
@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_embeds_as_the_pipeline_does(pipeline: Any, model: QwenImage, prompt: str) -> None:
    """Which reads 1,058 tokens and tells of 512: what comes behind changes nothing before it."""
    wanted, mask = pipeline.encode_prompt(prompt, device="cpu", max_sequence_length=512)
    found, read = model.embed([prompt])
    count = wanted.shape[1]
    assert mask is None  # all that there is is read
    torch.testing.assert_close(found[:, :count], wanted, rtol=1e-4, atol=1e-5)
    assert not found[:, count:].any()
    assert read.tolist() == [[1.0] * count + [0.0] * (512 - count)]


@torch.no_grad()
def test_all_of_sampling_is_the_pipelines(pipeline: Any, model: QwenImage) -> None:
    """Timesteps, levels, guidance and the picture: of prompts as they are, not filled up."""
    noise = noise_bank(1, model.latent_shape, seed=5)
    wanted = pipeline(
        PROMPTS[0], negative_prompt="", latents=QwenImagePipeline._pack_latents(noise, 1, 4, *SIZE),
        **PIXELS, num_inference_steps=STEPS, true_cfg_scale=4.0, output_type="latent",
    ).images  # fmt: skip
    told = model.embed(PROMPTS[:1])
    *_, last = denoise(model, told, noise, inference_steps=STEPS, guidance=4.0)
    found = QwenImagePipeline._pack_latents(last.latents, 1, 4, *SIZE)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    levels = pipeline.scheduler.sigmas.numpy()
    np.testing.assert_allclose(sigmas(model.scheduler_record(STEPS)), levels, rtol=1e-5)
    assert levels[-2] == pytest.approx(0.02, rel=1e-4)


# the bundle


def test_what_the_bundle_says(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.model.family, manifest.model.prediction_type) == (
        "qwen-image",
        "flow_prediction",
    )
    assert (manifest.unit, manifest.timestep, manifest.guidance) == ("x0", 1000, 4.0)
    assert (manifest.tokens, manifest.keeps_length) == (512, 2)
    assert (manifest.tokenizer.kind, manifest.tokenizer.length) == ("qwen2", 546)
    assert manifest.taps == ("transformer_blocks.0", "transformer_blocks.1")


def test_it_reads_what_its_own_tokenizer_gives(model: QwenImage, bundle: Path) -> None:
    prompts = [*odd_strings()[::5], *PROMPTS]
    prompts = [each for each in prompts if "<|endoftext|>" not in each[-20:]]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    behind = len(model.tokenizer("<|im_end|>\n<|im_start|>assistant\n").input_ids)
    lengths = [len(model.tokenizer(_TEMPLATE.format(each)).input_ids) for each in prompts]
    assert found.truncated == tuple(length - behind > 546 for length in lengths)
    assert {True, False} == set(found.truncated)


def test_a_model_that_is_loaded_at_another_size(folder: Path, screener: Screener) -> None:
    """As it comes it is of 1024 px: what runs a bundle is of the bundle's size."""
    whole = load_model(folder)
    with Screener.open(screener.bundle.path, backend=TorchBackend(whole)) as other:
        wanted = screener.first_step(["a cat"])
        np.testing.assert_allclose(other.first_step(["a cat"]), wanted, rtol=1e-4)


def test_words_are_weighed_by_gradients(folder: Path, model: QwenImage, screener: Screener) -> None:
    detector, prompt = Detector(screener, uncalibrated="score"), "a cat on the moon"
    explainer = Explainer(detector, Gradient(load_model(folder)))
    found = {each.word: each.score for each in explainer.explain(prompt, noises=1).words}
    reading = read(screener.tokenizer, prompt)
    bank = torch.from_numpy(screener.bundle.noise_bank()[:1])
    [[norms]] = token_gradients(model, torch.from_numpy(reading.ids), bank)
    cat = list(reading.groups[1])
    assert found["cat"] == pytest.approx(float(norms[cat].norm()), rel=1e-4)
    assert norms[-1] == 0  # padding
    assert min(found.values()) > 0
    with pytest.raises(InputError, match="reads prompts in a template"):
        Gradient(model, "gradient-output")


# what is in the way


def test_what_it_does_not_take(folder: Path, model: QwenImage) -> None:
    with pytest.raises(InputError, match="Give multiples of 2"):
        model.resized((3, 4))
    with pytest.raises(ExportError, match="Qwen2's ids are those of transformers 5"):
        export_bundle(model, folder / "out", ExportOptions(tokenizer="transformers-4"))


CHANGES: list[tuple[str, str, Any, str]] = [
    ("transformer/config.json", "guidance_embeds", True, "guidance_embeds is true"),
    ("transformer/config.json", "zero_cond_t", True, "zero_cond_t is true"),
    ("transformer/config.json", "in_channels", 18, "must be 4 x out_channels, 16"),
    ("transformer/config.json", "joint_attention_dim", 80, "Qwen2.5-VL's hidden_size, 32"),
    ("transformer/config.json", "axes_dims_rope", [4, 4, 4], "add up to attention_head_dim, 16"),
    ("text_encoder/config.json", "model_type", "qwen2_vl", "model_type is 'qwen2_vl'"),
    ("scheduler/scheduler_config.json", "shift_terminal", 1.5, "between 0 and 1"),
    ("model_index.json", "_class_name", "QwenImageEditPipeline", "QwenImageEditPipeline"),
]


@pytest.mark.parametrize(("file", "option", "value", "words"), CHANGES)
def test_what_is_not_covered_is_named(
    folder: Path, file: str, option: str, value: object, words: str
) -> None:
    check_is_named(folder, file, option, value, words)


def test_published_configs_are_covered(folder: Path) -> None:
    """As far as they say more than the library's defaults."""
    configs: dict[str, dict[str, Any]] = {
        "model_index": json.loads((folder / "model_index.json").read_text()),
        "transformer": {"_class_name": "QwenImageTransformer2DModel", "guidance_embeds": False},
        "text_encoder": {"model_type": "qwen2_5_vl", "hidden_size": 3584, "hidden_act": "silu",
                         "use_sliding_window": False, "sliding_window": 32768},
        "scheduler": {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192,
                      "shift": 1.0, "shift_terminal": 0.02, "use_dynamic_shifting": True},
    }  # fmt: skip
    QwenImage.check_configs(configs, "it")
    assert LAYOUT.problems(configs) == []


def test_every_option_of_diffusers_is_in_a_table() -> None:
    own = inspect.signature(QwenImageTransformer2DModel.__init__).parameters
    assert {name: option.default for name, option in TRANSFORMER.items()} == {
        name: own[name].default for name in own if name != "self"
    }

"""PixArt-Sigma: noise with a variance beside it, a T5 in lower case whose padding nobody reads."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cuda_kernels import lacking
from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel
from family_bundles import Family, check_is_named
from graph_support import kinds
from odd_prompts import odd_strings

from mnemoscope import Detector, InputError
from mnemoscope.explain.attribution import Gradient
from mnemoscope.explain.explanation import Explainer
from mnemoscope.explain.words import read
from mnemoscope_export import (
    ExportOptions,
    denoise,
    export_bundle,
    load_model,
    noise_bank,
    token_gradients,
)
from mnemoscope_export.models.pixart import LAYOUT, TRANSFORMER, PixArtSigma
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle, Screener, tokenizer_of
from mnemoscope_runtime.backends.tensorrt.build import check_plan

PROMPTS = ["A Photo of a cat ", "the end </s> of <pad> it", "word " * 400]
STEPS = 5


@pytest.fixture(scope="module")
def family(families: Mapping[str, Family]) -> Family:
    return families["pixart"]


# what the transformer is told, and what it says, by diffusers' own pipeline


@torch.no_grad()
@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_embeds_as_the_pipeline_does(pipeline: Any, model: PixArtSigma, prompt: str) -> None:
    """Also where a prompt spells what stands behind it: a mask goes to the end that is added."""
    wanted = pipeline.encode_prompt([prompt], device="cpu")
    for found, theirs in zip((*model.embed([prompt]), *model.embed_empty()), wanted, strict=True):
        torch.testing.assert_close(found, theirs.to(found.dtype))


@torch.no_grad()
def test_all_of_sampling_is_the_pipelines(pipeline: Any, model: PixArtSigma) -> None:
    noise = noise_bank(1, model.latent_shape, seed=5)
    wanted = pipeline(
        PROMPTS[0], latents=noise, height=64, width=64, num_inference_steps=STEPS,
        guidance_scale=4.5, output_type="latent", clean_caption=False,
        use_resolution_binning=False,
    ).images  # fmt: skip
    told = model.embed(PROMPTS[:1])
    *_, last = denoise(model, told, noise, inference_steps=STEPS, guidance=4.5)
    torch.testing.assert_close(last.latents, wanted, rtol=1e-4, atol=1e-4)


def test_as_it_was_first_published(folder: Path, tmp_path: Path) -> None:
    """Of a class that diffusers has renamed, with that one's options."""
    old = shutil.copytree(folder, tmp_path / "old")
    for name, changes in {
        "model_index.json": {"transformer": ["diffusers", "Transformer2DModel"]},
        "transformer/config.json": {
            "_class_name": "Transformer2DModel", "double_self_attention": False,
            "num_vector_embeds": None, "only_cross_attention": False,
            "use_additional_conditions": False, "use_linear_projection": False,
        },
    }.items():  # fmt: skip
        path = old / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    check_against_pipeline(load_model(old), 4.5, STEPS)


# the bundle


def test_what_the_bundle_says(screener: Screener) -> None:
    manifest = screener.bundle.manifest
    assert (manifest.model.family, manifest.model.prediction_type) == ("pixart-sigma", "epsilon")
    assert (manifest.unit, manifest.timestep, manifest.guidance) == ("eps", 999, 4.5)
    assert manifest.embeddings == ("prompt_embeds", "prompt_mask")
    assert (manifest.tokenizer.kind, manifest.tokenizer.length) == ("t5", 300)
    assert manifest.taps == ("transformer_blocks.0", "transformer_blocks.1")
    # sqrt((1 - abar) / abar) of the linear schedule's last timestep, which is this family's own
    beta = np.linspace(1e-4, 0.02, 1000)
    abar = np.prod(1 - beta)
    assert screener.x0_per_unit()[0] == pytest.approx(((1 - abar) / abar) ** 0.5, rel=1e-4)
    assert screener.x0_per_unit()[0] == pytest.approx(157.4, abs=0.05)


def test_it_reads_what_its_own_tokenizer_gives(model: PixArtSigma, bundle: Path) -> None:
    prompts = [*odd_strings()[::5], *PROMPTS, "", "\u0130stanbul  ", "\u3000 \u2028X"]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    lengths = map(len, model.tokenizer([each.lower().strip() for each in prompts]).input_ids)
    assert found.truncated == tuple(length > 300 for length in lengths)


@pytest.mark.slow
def test_bfloat16(model: PixArtSigma, tmp_path: Path) -> None:
    """Of all families this one: its export is the shortest."""
    options = ExportOptions(noises=1, precision="bfloat16")
    manifest = export_bundle(model, tmp_path / "bundle", options).manifest
    assert lacking(tmp_path / "bundle") == set()
    assert manifest.precision == "bfloat16"
    for graph in manifest.graphs.keys() - {"text_encoder"}:
        assert kinds(tmp_path / "bundle" / f"{graph}.onnx") == {onnx.TensorProto.BFLOAT16}
    errors = [figures["max_relative_error"] for figures in manifest.parity.values()]
    assert 1e-4 < max(errors) < 0.05
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    check_plan(Bundle.open(tmp_path / "bundle"), "screen")


def test_a_pipelines_embeddings_are_screened_as_its_prompt(
    pipeline: Any, screener: Screener
) -> None:
    told, mask, empty, empty_mask = pipeline.encode_prompt(PROMPTS[:1], device="cpu")
    detector = Detector(screener, uncalibrated="score")
    [wanted] = detector.screen(PROMPTS[:1])
    for baseline in ({}, {"empty_embeds": empty, "empty_mask": empty_mask}):
        [found] = detector.screen_embeddings(told, prompt_mask=mask, **baseline)
        assert found.score == pytest.approx(wanted.score, rel=1e-4)
    for wrong, words in (
        ({}, "prompt_mask is missing"),
        ({"prompt_mask": mask * 2}, "more than 0 and 1"),
        ({"prompt_mask": mask[:, :9]}, "prompt_mask has the shape"),
        ({"prompt_mask": mask, "empty_mask": empty_mask}, "goes together"),
    ):
        with pytest.raises(InputError, match=words):
            detector.screen_embeddings(told, **wrong)


def test_detectors_of_predicted_noises(
    bundle: Path, model: PixArtSigma, screener: Screener
) -> None:
    for name in ("score-difference-map", "sharpness"):
        detector = Detector(screener, detector=name, uncalibrated="score")
        assert detector.screen(PROMPTS[:1], noises=1)[0].score > 0
    with Screener.open(bundle, backend=TorchBackend(model)) as torch_screener:
        exact = Detector(torch_screener, detector="sharpness", uncalibrated="score")
        assert exact.screen(PROMPTS[:1], noises=1)[0].score > 0
        maps = Detector(torch_screener, detector="attention-entropy", uncalibrated="score")
        with pytest.raises(InputError, match=r"attention of a UNet.* the family PixArt-Sigma"):
            maps.screen(PROMPTS[:1], noises=1)


def test_a_piece_is_what_stands_in_the_prompt(screener: Screener) -> None:
    """Also where it is read in lower case, without space around it."""
    pieces = screener.tokenizer.pieces("  A Cat")
    assert next(piece.span for piece in pieces if piece.span) == (2, 3)


def test_words_are_weighed_by_gradients(model: PixArtSigma, screener: Screener) -> None:
    detector, prompt = Detector(screener, uncalibrated="score"), "a cat on the moon"
    explainer = Explainer(detector, Gradient(model))
    found = {each.word: each.score for each in explainer.explain(prompt, noises=1).words}
    reading = read(screener.tokenizer, prompt)
    bank = torch.from_numpy(screener.bundle.noise_bank()[:1])
    [[norms]] = token_gradients(model, torch.from_numpy(reading.ids), bank)
    cat = list(reading.groups[1])
    assert found["cat"] == pytest.approx(float(norms[cat].norm()), rel=1e-4)
    assert norms[-1] == 0  # padding
    assert min(found.values()) > 0


# what is in the way


def test_what_it_does_not_take(model: PixArtSigma) -> None:
    with pytest.raises(InputError, match="Give multiples of 2"):
        model.resized((3, 4))


CHANGES: list[tuple[str, str, Any, str]] = [
    ("transformer/config.json", "norm_type", "ada_norm", "norm_type is 'ada_norm'"),
    ("transformer/config.json", "use_additional_conditions", True, "told a resolution too"),
    ("transformer/config.json", "out_channels", 6, "or twice as many"),
    ("transformer/config.json", "caption_channels", 80, "must be T5's d_model, 40"),
    ("transformer/config.json", "cross_attention_dim", 16, "attention_head_dim, 32"),
    ("transformer/config.json", "sample_size", 9, "must be whole patches"),
    ("transformer/config.json", "double_self_attention", True, "double_self_attention is true"),
    ("scheduler/scheduler_config.json", "use_flow_sigmas", True, "use_flow_sigmas"),
    ("scheduler/scheduler_config.json", "variance_type", "learned_range", "variance_type"),
    ("model_index.json", "_class_name", "PixArtSigmaPAGPipeline", "PixArtSigmaPAGPipeline"),
]


@pytest.mark.parametrize(("file", "option", "value", "words"), CHANGES)
def test_what_is_not_covered_is_named(
    folder: Path, file: str, option: str, value: object, words: str
) -> None:
    check_is_named(folder, file, option, value, words)


def test_published_configs_are_covered(folder: Path) -> None:
    """As far as they say more than the library's defaults: 1024 px, and sampled with DPM++."""
    configs: dict[str, dict[str, Any]] = {
        "model_index": json.loads((folder / "model_index.json").read_text()),
        "transformer": {"caption_channels": 4096, "interpolation_scale": 2, "sample_size": 128,
                        "use_additional_conditions": False},
        "text_encoder": {"d_model": 4096, "d_ff": 10240, "feed_forward_proj": "gated-gelu",
                         "num_layers": 24, "num_heads": 64, "model_type": "t5"},
        "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear",
                      "algorithm_type": "dpmsolver++", "lambda_min_clipped": -float("inf"),
                      "timestep_spacing": "linspace", "variance_type": None,
                      "euler_at_final": False, "use_karras_sigmas": False},
    }  # fmt: skip
    PixArtSigma.check_configs(configs, "it")
    assert LAYOUT.problems(configs) == []


def test_every_option_of_diffusers_is_in_a_table() -> None:
    own = inspect.signature(PixArtTransformer2DModel.__init__).parameters
    assert {name: option.default for name, option in TRANSFORMER.items()} == {
        name: own[name].default for name in own if name != "self"
    }
    assert PixArtSigma.pipeline_class is PixArtSigmaPipeline

"""FLUX.1: guidance is an input or none at all, latents are packed, CLIP's pooled state and a T5."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from diffusers import FluxPipeline, FluxTransformer2DModel
from family_bundles import Family, check_is_named
from odd_prompts import odd_strings
from pipelines import build_flux
from t5_tokenizers import t5_tokenizer

from mnemoscope import ExportError, InputError
from mnemoscope.explain.attribution import Gradient
from mnemoscope_export import (
    ExportOptions,
    LoadOptions,
    denoise,
    export_bundle,
    load_model,
    noise_bank,
)
from mnemoscope_export.models.flux import LAYOUT, TRANSFORMER, Flux
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle, Screener, tokenizer_of
from mnemoscope_runtime.schedulers import sigmas

PROMPTS = ["a photo of a cat", "word " * 600]
STEPS, SIZE = 4, (4, 6)
SMALL = LoadOptions(latent_size=SIZE)
PIXELS = {"height": 32, "width": 48}


@pytest.fixture(scope="module")
def family(families: Mapping[str, Family]) -> Family:
    return families["flux"]


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> Flux:
    folder = tmp_path_factory.mktemp("schnell")
    build_flux(t5_tokenizer(), schnell=True).save_pretrained(folder)
    found = load_model(folder, options=SMALL)
    assert isinstance(found, Flux)
    return found


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    found = FluxPipeline.from_pretrained(folder, use_safetensors=True, vae=None)
    found.set_progress_bar_config(disable=True)
    return found


# what the transformer is told, and what it says, by diffusers' own pipeline


@torch.no_grad()
@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_embeds_as_the_pipeline_does(pipeline: Any, model: Flux, prompt: str) -> None:
    told, pooled, places = pipeline.encode_prompt(prompt, device="cpu")
    for found, wanted in zip(model.embed([prompt]), (told, pooled), strict=True):
        torch.testing.assert_close(found, wanted)
    text, _ = model.places()
    torch.testing.assert_close(text, places)
    assert told.shape[1] == model.tokens == 512


@torch.no_grad()
@pytest.mark.parametrize("name", ["model", "schnell"])
def test_all_of_sampling_is_the_pipelines(name: str, request: pytest.FixtureRequest) -> None:
    """Of one branch, as the pipeline draws: timesteps, levels and the picture."""
    own: Flux = request.getfixturevalue(name)
    own, scale = own.guided(2.5 if own.is_guided else None)
    assert scale == 1
    pipeline = own.assembled()
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_bank(1, own.latent_shape, seed=5)
    packed = FluxPipeline._pack_latents(noise, 1, 4, *SIZE)
    wanted = pipeline(
        PROMPTS[0], latents=packed, **PIXELS, num_inference_steps=STEPS, guidance_scale=2.5,
        max_sequence_length=own.tokens, output_type="latent",
    ).images  # fmt: skip
    told = own.embed(PROMPTS[:1])
    steps = list(denoise(own, told, noise, inference_steps=STEPS, guidance=scale))
    found = FluxPipeline._pack_latents(steps[-1].latents, 1, 4, *SIZE)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    levels = pipeline.scheduler.sigmas.numpy()
    np.testing.assert_allclose(sigmas(own.scheduler_record(STEPS)), levels, rtol=1e-6)


@torch.no_grad()
def test_both_branches_are_what_the_pipeline_calls_true_guidance(schnell: Flux) -> None:
    check_against_pipeline(schnell, 1.0, STEPS)
    broken = copy.deepcopy(schnell.transformer)
    broken.proj_out.weight *= 1.01
    with pytest.raises(ExportError, match="network's prediction is off by"):
        check_against_pipeline(schnell.with_network(broken), 1.0, STEPS)


@torch.no_grad()
def test_guidance_is_an_input(model: Flux) -> None:
    """Of the folded graph too: at another one magnitudes are others."""
    bank = noise_bank(2, model.latent_shape, seed=1)
    low, high = (
        measure_at(model.guided(scale)[0], PROMPTS, bank, 800)[..., 0] for scale in (2.0, 3.5)
    )
    assert (low - high).abs().min() > 1e-3 * high.max()


# the bundle


def test_what_the_bundle_says(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.model.family, manifest.model.prediction_type) == (
        "flux-dev",
        "flow_prediction",
    )
    assert (manifest.unit, manifest.timestep, manifest.tokens) == ("x0", 1000, 512)
    assert (manifest.guidance, manifest.model.told_guidance) == (1.0, 5.0)
    assert [record.kind for record in manifest.tokenizers.values()] == ["clip", "t5"]
    assert manifest.taps == ("transformer_blocks.0", "single_transformer_blocks.0")


def test_pytorch_tells_it_the_guidance_of_the_bundle(bundle: Path, model: Flux) -> None:
    """Which is not the one that it was loaded with; both graphs."""
    record = Bundle.open(bundle).manifest.model
    assert model.guidance == 3.5
    assert "told a guidance of 5.0, not that of" in str(model.unlike(record, bundle))
    with (
        Screener.open(bundle, threads=1) as onnx,
        Screener(Bundle.open(bundle), TorchBackend(model)) as screener,
    ):
        for steps in (1, 2):
            np.testing.assert_allclose(
                screener.trajectory(PROMPTS, steps=steps),
                onnx.trajectory(PROMPTS, steps=steps),
                rtol=1e-4,
            )
        np.testing.assert_allclose(
            screener.first_step(PROMPTS), onnx.first_step(PROMPTS), rtol=1e-4
        )


def test_each_encoder_reads_what_its_own_tokenizer_gives(model: Flux, bundle: Path) -> None:
    prompts = [*odd_strings()[::5], *PROMPTS, ""]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    lengths = map(len, model.tokenizer_2(prompts).input_ids)
    assert found.truncated == tuple(length > 512 for length in lengths)


def test_on_the_command_line(bundle: Path, run: Run) -> None:
    assert "guidance that it is told" in run("inspect", bundle).out


# what is in the way


def test_what_it_does_not_take(folder: Path, model: Flux, schnell: Flux) -> None:
    with pytest.raises(InputError, match="schnell, whose transformer is told no guidance"):
        export_bundle(schnell, folder / "out", ExportOptions(guidance=3.5))
    with pytest.raises(InputError, match="Give multiples of 2"):
        model.resized((3, 4))
    with pytest.raises(InputError, match=r"told of 512 tokens.*any-length"):
        export_bundle(model, folder / "out", ExportOptions(any_length=True))
    with pytest.raises(InputError, match="tokens of their own"):
        Gradient(model)


CHANGES: list[tuple[str, str, Any, str]] = [
    ("transformer/config.json", "patch_size", 2, "patch_size is 2"),
    ("transformer/config.json", "in_channels", 18, "a multiple of 4"),
    ("transformer/config.json", "out_channels", 8, "must be in_channels, or null, 16"),
    ("transformer/config.json", "joint_attention_dim", 80, "must be T5's d_model, 40"),
    ("transformer/config.json", "pooled_projection_dim", 24, "must be CLIP's hidden_size, 32"),
    ("transformer/config.json", "axes_dims_rope", [4, 4, 4], "add up to attention_head_dim, 16"),
    ("transformer/config.json", "a_new_option", 1, "a_new_option, an option that is not known"),
    ("scheduler/scheduler_config.json", "use_karras_sigmas", True, "use_karras_sigmas"),
    ("model_index.json", "_class_name", "FluxFillPipeline", "its pipeline is 'FluxFillPipeline'"),
    ("model_index.json", "controlnet", ["diffusers", "X"], "a part controlnet"),
    ("model_index.json", "text_encoder_2", [None, None], "it has no text_encoder_2"),
]


@pytest.mark.parametrize(("file", "option", "value", "words"), CHANGES)
def test_what_is_not_covered_is_named(
    folder: Path, file: str, option: str, value: object, words: str
) -> None:
    check_is_named(folder, file, option, value, words)


@pytest.mark.parametrize("guided", [True, False])
def test_published_configs_are_covered(folder: Path, guided: bool) -> None:
    """As far as they say more than the library's defaults."""
    shift = {"base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096,
             "max_shift": 1.15, "shift": 3.0, "use_dynamic_shifting": True}  # fmt: skip
    configs: dict[str, dict[str, Any]] = {
        "model_index": json.loads((folder / "model_index.json").read_text()),
        "transformer": {"_class_name": "FluxTransformer2DModel", "guidance_embeds": guided},
        "text_encoder": {"hidden_size": 768, "hidden_act": "quick_gelu", "projection_dim": 768,
                         "model_type": "clip_text_model", "vocab_size": 49408},
        "text_encoder_2": {"d_model": 4096, "d_ff": 10240, "feed_forward_proj": "gated-gelu",
                           "num_layers": 24, "num_heads": 64, "model_type": "t5"},
        "tokenizer": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
        "scheduler": shift if guided else {"shift": 1.0},
    }  # fmt: skip
    Flux.check_configs(configs, "it")
    assert LAYOUT.problems(configs) == []


def test_every_option_of_diffusers_is_in_a_table() -> None:
    own = inspect.signature(FluxTransformer2DModel.__init__).parameters
    assert {name: option.default for name, option in TRANSFORMER.items()} == {
        name: own[name].default for name in own if name != "self"
    }

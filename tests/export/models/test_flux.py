"""FLUX.1: guidance is an input or none at all, latents are packed, CLIP's pooled state and a T5."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from cuda_kernels import lacking
from diffusers import FluxPipeline, FluxTransformer2DModel
from guard_support import check_reads_what_is_screened
from mitigate_support import check_is_mitigated
from odd_prompts import odd_strings
from pipelines import build_flux
from shared import Shared
from t5_tokenizers import t5_tokenizer
from toys import TOYS

from mnemoscope import Detector, ExportError, InputError
from mnemoscope.explain.attribution import Gradient
from mnemoscope_export import (
    ExportOptions,
    LoadOptions,
    denoise,
    export_bundle,
    load_model,
    magnitudes,
    noise_bank,
)
from mnemoscope_export.models.flux import LAYOUT, TRANSFORMER, Flux
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import BackendError, Bundle, Screener, tokenizer_of
from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.schedulers import sigmas

PROMPTS = ["a photo of a cat", "word " * 600]
STEPS, SIZE = 4, (4, 6)
SMALL = LoadOptions(latent_size=SIZE)
PIXELS = {"height": 32, "width": 48}


def saved(folder: Path, *, schnell: bool = False) -> Path:
    build_flux(t5_tokenizer(), schnell=schnell).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Flux:
    found = load_model(folder, options=SMALL)
    assert isinstance(found, Flux)
    return found


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> Flux:
    found = load_model(saved(tmp_path_factory.mktemp("schnell"), schnell=True), options=SMALL)
    assert isinstance(found, Flux)
    return found


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    found = FluxPipeline.from_pretrained(folder, use_safetensors=True, vae=None)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def bundle(folder: Path, shared: Shared) -> Path:
    options = ExportOptions(noises=2, seed=3, inference_steps=STEPS, taps="auto", guidance=5.0)
    return shared(
        "bundle/flux",
        lambda out: export_bundle(lambda: load_model(folder, options=SMALL), out, options),
    )


@pytest.fixture(scope="module")
def screener(bundle: Path) -> Any:
    with Screener.open(bundle) as found:
        yield found


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
def test_another_timestep_size_and_guidance(model: Flux) -> None:
    """Folded, against the transformer as it is."""
    other = model.resized((6, 4)).guided(2.0)[0]
    bank = noise_bank(2, other.latent_shape, seed=1)
    expected = measure_at(other, PROMPTS, bank, 800, taps=other.tappable())
    found, norms = ScreenGraph(other, bank, 800, other.tappable())(
        other.embed(PROMPTS), torch.arange(2)
    )
    torch.testing.assert_close(torch.cat([found[..., None], norms], -1), expected)
    usual = measure_at(model.resized((6, 4)), PROMPTS, bank, 800)
    assert (usual[..., 0] - expected[..., 0]).abs().min() > 1e-3 * usual[..., 0].max()


# the bundle


def test_what_the_bundle_says(bundle: Path, model: Flux) -> None:
    manifest = Bundle.open(bundle).manifest
    assert lacking(bundle) == set()
    assert (manifest.model.family, manifest.model.prediction_type) == (
        "flux-dev",
        "flow_prediction",
    )
    assert (manifest.unit, manifest.timestep, manifest.tokens) == ("x0", 1000, 512)
    assert (manifest.guidance, manifest.model.told_guidance) == (1.0, 5.0)
    assert [record.kind for record in manifest.tokenizers.values()] == ["clip", "t5"]
    assert manifest.taps == ("transformer_blocks.0", "single_transformer_blocks.0")
    assert model.guided(5.0)[0].difference(manifest.model) is None
    with pytest.raises(BackendError, match=r"told a guidance of 5\.0, not that of"):
        Screener.open(bundle, backend=TorchBackend(model))


def test_each_encoder_reads_what_its_own_tokenizer_gives(model: Flux, bundle: Path) -> None:
    prompts = [*odd_strings()[::5], *PROMPTS, ""]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    lengths = map(len, model.tokenizer_2(prompts).input_ids)
    assert found.truncated == tuple(length > 512 for length in lengths)


def test_the_bundle_agrees_with_pytorch(model: Flux, screener: Screener) -> None:
    noises = torch.from_numpy(screener.bundle.noise_bank())
    told, scale = model.guided(5.0)
    options: dict[str, Any] = {"inference_steps": STEPS, "guidance": scale}
    expected = magnitudes(told, PROMPTS, noises, steps=STEPS, **options).numpy()
    found = screener.trajectory(PROMPTS, steps=STEPS)
    assert relative_error(found, expected, screener.smallest_magnitude).max() < 1e-4
    np.testing.assert_allclose(screener.first_step(PROMPTS), expected[..., 0], rtol=1e-4)
    assert screener.probe() < 1e-4


def test_openvino_agrees(bundle: Path, screener: Screener) -> None:
    with Screener.open(bundle, backend="openvino") as other:
        wanted = screener.first_step(PROMPTS)
        np.testing.assert_allclose(other.first_step(PROMPTS), wanted, rtol=1e-4)


def test_a_pipelines_embeddings_are_screened_as_its_prompt(
    pipeline: Any, screener: Screener
) -> None:
    told, pooled, _ = pipeline.encode_prompt(PROMPTS[0], device="cpu")
    detector = Detector(screener, uncalibrated="score")
    [found] = detector.screen_embeddings(told.detach(), pooled.detach())
    [wanted, long] = detector.screen(PROMPTS)
    assert found.score == pytest.approx(wanted.score, rel=1e-4)
    assert "Only its first 511 tokens" in long.notes[0]


def test_it_is_mitigated(model: Flux, screener: Screener) -> None:
    check_is_mitigated(model, TOYS["flux"].vae(), screener)


def test_a_guard_reads_what_is_screened(pipeline: Any, model: Flux, screener: Screener) -> None:
    guard = {"extra_pass": True}
    check_reads_what_is_screened(pipeline, model, screener, guard, guidance_scale=5.0)


def test_on_the_command_line(bundle: Path, run: Run) -> None:
    shown = run("inspect", bundle).out
    assert "guidance that it is told" in shown
    assert "ids of transformers-5's T5Tokenizer, 512 a prompt" in shown


# what is in the way


def test_what_it_does_not_take(folder: Path, model: Flux, schnell: Flux) -> None:
    with pytest.raises(InputError, match="draws without an unconditional branch"):
        load_model(folder, options=LoadOptions(negative="blurry"))
    with pytest.raises(InputError, match=r"FLUX\.1, of which clip_skip cannot be read here"):
        load_model(folder, options=LoadOptions(clip_skip=1))
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
    path = folder / file
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), option: value}))
    try:
        with pytest.raises(ExportError, match=words):
            load_model(folder)
    finally:
        path.write_text(text)


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

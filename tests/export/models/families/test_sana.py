"""Sana: an instruction before prompts alone, linear attention, whole timesteps of a flow."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
from family_bundles import Family, check_is_named
from odd_prompts import odd_strings
from transformers import GemmaTokenizer

from mnemoscope import ExportError, InputError
from mnemoscope.explain.attribution import Gradient
from mnemoscope_export import (
    ExportOptions,
    denoise,
    export_bundle,
    noise_bank,
)
from mnemoscope_export.configs.flow import DPM_SCHEDULER
from mnemoscope_export.models.sana import INSTRUCTION, LAYOUT, TRANSFORMER, Sana
from mnemoscope_export.models.sana_blocks import AttendLinear
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle, Screener, tokenizer_of
from mnemoscope_runtime.schedulers import FlowDpm, sigmas, timesteps

PROMPTS = ["A Photo of a cat ", "the end <pad> of <BOS> it", "word " * 400]
STEPS = 5


@pytest.fixture(scope="module")
def family(families: Mapping[str, Family]) -> Family:
    return families["sana"]


# what the transformer is told, and what it says, by diffusers' own pipeline


def test_the_instruction_is_the_pipelines(model: Sana) -> None:
    own = inspect.signature(SanaPipeline.__call__).parameters
    assert "\n".join(own["complex_human_instruction"].default) == INSTRUCTION
    assert own["max_sequence_length"].default == model.tokens


@torch.no_grad()
@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_embeds_as_the_pipeline_does(pipeline: Any, model: Sana, prompt: str) -> None:
    """Also where a prompt spells what stands behind it; nothing reads the embeddings of padding."""
    told, mask, empty, empty_mask = pipeline.encode_prompt(
        [prompt], device="cpu", complex_human_instruction=INSTRUCTION.split("\n")
    )
    for (found, read), theirs, wanted in (
        (model.embed([prompt]), told, mask),
        (model.embed_empty(), empty, empty_mask),
    ):
        torch.testing.assert_close(read, wanted.to(read.dtype))
        torch.testing.assert_close(found, theirs * read[..., None])
    assert empty_mask.sum() == 1  # a start, and no instruction


@torch.no_grad()
def test_all_of_sampling_is_that_of_a_pipeline_of_first_order(pipeline: Any, model: Sana) -> None:
    noise = noise_bank(1, model.latent_shape, seed=5)
    wanted = pipeline(
        PROMPTS[0], latents=noise, height=128, width=128, num_inference_steps=STEPS,
        guidance_scale=4.5, output_type="latent", use_resolution_binning=False,
    ).images  # fmt: skip
    told = model.embed(PROMPTS[:1])
    steps = list(denoise(model, told, noise, inference_steps=STEPS, guidance=4.5))
    torch.testing.assert_close(steps[-1].latents, wanted, rtol=1e-4, atol=1e-4)
    assert [each.timestep for each in steps] == pipeline.scheduler.timesteps.tolist()
    levels = sigmas(model.scheduler_record(STEPS))
    np.testing.assert_array_equal(levels, pipeline.scheduler.sigmas.numpy())


def test_a_pipelines_solver_of_second_order_begins_alike(model: Sana) -> None:
    """Its first step is one of first order: what it says behind the second differs."""
    samplers = [model.sampler(), DPMSolverMultistepScheduler.from_config(model.scheduler.config)]
    x, found = torch.ones(1, 1, 2, 2), []
    for sampler in samplers:
        sampler.set_timesteps(STEPS)
        latents = [x]
        for t in sampler.timesteps:
            latents.append(sampler.step(latents[-1] * 0.1 + t / 1000, t, latents[-1]).prev_sample)
        found.append(latents)
    assert samplers[1].config.solver_order == 2
    torch.testing.assert_close(found[0][1], found[1][1])
    assert not torch.allclose(found[0][2], found[1][2], rtol=1e-4)


def test_without_norms_and_with_places(pipeline: Any) -> None:
    """As the first checkpoints are, and those for 4096 px."""
    config = {**pipeline.transformer.config, "qk_norm": None, "interpolation_scale": 2.0}
    torch.manual_seed(1)
    parts = {**pipeline.components, "transformer": SanaTransformer2DModel.from_config(config)}
    other = Sana("it", **{name: part for name, part in parts.items() if name != "vae"})
    check_against_pipeline(other, 4.5, STEPS)
    bank = noise_bank(2, other.latent_shape, seed=1)
    found, _ = ScreenGraph(other, bank, 999, other.tappable())(
        other.embed(PROMPTS[:2]), torch.arange(2)
    )
    torch.testing.assert_close(found, measure_at(other, PROMPTS[:2], bank, 999)[..., 0])


@torch.no_grad()
def test_linear_attention_where_nothing_is_above_zero(model: Sana) -> None:
    """Zero, as diffusers has it, and not zero by zero."""
    attn = model.traceable().transformer.transformer_blocks[1].attn1
    theirs = model.transformer.transformer_blocks[1].attn1.processor
    x = torch.randn(2, 5, 32, generator=torch.manual_seed(0))
    nothing = torch.nn.Linear(32, 32, bias=False)
    torch.nn.init.zeros_(nothing.weight)
    for query in (attn.to_q, nothing):
        attn.to_q = query
        found = AttendLinear()(attn, x)
        torch.testing.assert_close(found, theirs(attn, x))
    torch.testing.assert_close(found, attn.to_out[0].bias.expand(2, 5, -1))


# the bundle


def test_what_the_bundle_says(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.model.family, manifest.model.prediction_type) == ("sana", "flow_prediction")
    assert (manifest.unit, manifest.timestep, manifest.guidance) == ("x0", 999, 4.5)
    assert manifest.embeddings == ("prompt_embeds", "prompt_mask")
    assert manifest.scheduler == FlowDpm(1000, 3.0, STEPS)
    assert timesteps(manifest.scheduler)[0] == manifest.timestep
    assert (manifest.tokenizer.kind, manifest.tokens) == ("gemma", 300)
    assert manifest.empty == "empty_embeds.npz"
    assert manifest.taps == ("transformer_blocks.0", "transformer_blocks.1")


def test_it_reads_what_its_own_tokenizer_gives(model: Sana, bundle: Path) -> None:
    prompts = [*odd_strings()[::5], *PROMPTS, "", "\u0130stanbul  ", "\u3000 \u2028X"]
    prompts = [each for each in prompts if not each.strip().endswith("<pad>")]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    texts = model.written_out(prompts, model.tokenizer)
    longest = model.tokenizer.model_max_length
    assert found.truncated == tuple(len(model.tokenizer(t).input_ids) > longest for t in texts)
    assert {True, False} == set(found.truncated)


def test_openvino_agrees_at_later_steps(bundle: Path, screener: Screener) -> None:
    with Screener.open(bundle, backend="openvino", graphs=("step",)) as other:
        wanted = screener.trajectory(PROMPTS, steps=2)
        np.testing.assert_allclose(other.trajectory(PROMPTS, steps=2), wanted, rtol=1e-4)


def test_a_piece_is_what_stands_in_the_prompt(screener: Screener) -> None:
    """Also where it is read in lower case, without space around it."""
    pieces = screener.tokenizer.pieces("  A Cat")
    assert next(piece.span for piece in pieces if piece.span) == (2, 3)


def test_on_the_command_line(bundle: Path, run: Run) -> None:
    assert "DPM-Solver++ of first order along a flow" in run("inspect", bundle).out


# what is in the way


def test_what_it_does_not_take(folder: Path, model: Sana) -> None:
    with pytest.raises(InputError, match="Give multiples of 1"):
        model.resized((0, 4))
    with pytest.raises(ExportError, match="Gemma's ids are those of transformers 5"):
        export_bundle(model, folder / "out", ExportOptions(tokenizer="transformers-4"))
    with pytest.raises(ExportError, match=r"so many that some are told alike.*--inference-steps"):
        model.scheduler_record(900)
    with pytest.raises(InputError, match="reads prompts in a template"):
        Gradient(model, "gradient-output")


def test_a_tokenizer_that_puts_nothing_before_prompts(folder: Path, tmp_path: Path) -> None:
    found = GemmaTokenizer.from_pretrained(folder / "tokenizer")
    found.add_bos_token = False
    found.update_post_processor()
    found.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ExportError, match="puts no <bos> before a prompt"):
        Sana.read_tokenizers(tmp_path, {})


CHANGES: list[tuple[str, str, Any, str]] = [
    ("transformer/config.json", "guidance_embeds", True, "guidance_embeds is true"),
    ("transformer/config.json", "qk_norm", "rms_norm", "qk_norm is 'rms_norm'"),
    ("transformer/config.json", "out_channels", 8, "out_channels is 8"),
    ("transformer/config.json", "caption_channels", 80, "must be Gemma's hidden_size, 24"),
    ("transformer/config.json", "cross_attention_dim", 16, "attention_head_dim, 32"),
    ("transformer/config.json", "num_cross_attention_heads", 4, "cross_attention_head_dim is 64"),
    ("transformer/config.json", "patch_size", 3, "must be whole patches"),
    ("text_encoder/config.json", "model_type", "gemma3_text", "model_type is 'gemma3_text'"),
    ("text_encoder/config.json", "use_bidirectional_attention", True, "use_bidirectional_att"),
    ("text_encoder/config.json", "layer_types", ["chunked_attention"], "layer_types"),
    ("scheduler/scheduler_config.json", "use_flow_sigmas", False, "use_flow_sigmas is false"),
    ("scheduler/scheduler_config.json", "prediction_type", "epsilon", "must be 'flow_prediction'"),
    ("scheduler/scheduler_config.json", "algorithm_type", "sde-dpmsolver++", "algorithm_type"),
    ("scheduler/scheduler_config.json", "final_sigmas_type", "sigma_min", "final_sigmas_type"),
    ("scheduler/scheduler_config.json", "flow_shift", 0, "a number above 0"),
    ("scheduler/scheduler_config.json", "_class_name", "FlowMatchEulerDiscreteScheduler", "Euler"),
    ("model_index.json", "_class_name", "SanaSprintPipeline", "was distilled"),
    ("model_index.json", "_class_name", "SanaControlNetPipeline", "is told a picture too"),
    ("model_index.json", "_class_name", "SanaPAGPipeline", "perturbed attention"),
    ("model_index.json", "text_encoder", ["transformers", "Gemma2ForCausalLM"], "must be Gemma2Mo"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "option", "value", "words"), CHANGES)
def test_what_is_not_covered_is_named(
    folder: Path, file: str, option: str, value: object, words: str
) -> None:
    check_is_named(folder, file, option, value, words)


def test_full_size_configs_are_covered(folder: Path) -> None:
    """diffusers' and transformers' defaults, which are those of 1024 px and of Gemma 2 2B."""
    configs: dict[str, dict[str, Any]] = {
        "model_index": json.loads((folder / "model_index.json").read_text()),
        "transformer": {"_class_name": "SanaTransformer2DModel"},
        "text_encoder": {"model_type": "gemma2", "hidden_size": 2304, "sliding_window": 4096,
                         "hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
        "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "flow_shift": 3.0,
                      "use_flow_sigmas": True, "prediction_type": "flow_prediction",
                      "algorithm_type": "dpmsolver++", "lambda_min_clipped": -float("inf")},
    }  # fmt: skip
    Sana.check_configs(configs, "it")
    assert LAYOUT.problems(configs) == []


def test_every_option_of_diffusers_is_in_a_table() -> None:
    for kind, table in (
        (SanaTransformer2DModel, TRANSFORMER),
        (DPMSolverMultistepScheduler, DPM_SCHEDULER),
    ):
        own = inspect.signature(kind.__init__).parameters
        assert {name: option.default for name, option in table.items()} == {
            name: own[name].default for name in own if name != "self"
        }

"""Stable Diffusion 3: two CLIPs and a T5, a transformer of joint blocks, a rectified flow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
)
from family_bundles import Family
from odd_prompts import odd_strings
from pipelines import build_sd3

from mnemoscope import CalibrationFile, Detector, ExportError, InputError, calibrate
from mnemoscope.benchmark.latency import stages
from mnemoscope.cli.evaluate import _detectors as which_detectors
from mnemoscope.detectors import DETECTORS
from mnemoscope.explain.attribution import Gradient
from mnemoscope.explain.words import read
from mnemoscope.serve.triton.graph import graph_files
from mnemoscope.serve.triton.options import ModelOptions
from mnemoscope.training import MemorizationFilter
from mnemoscope_export import (
    ExportOptions,
    LoadOptions,
    Lora,
    StableDiffusion,
    denoise,
    export_bundle,
    load_model,
    magnitudes,
    noise_bank,
)
from mnemoscope_export.models.sd3 import StableDiffusion3
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle, IntegrityError, Screener, tokenizer_of
from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.backends.tensorrt.build import check_plan
from mnemoscope_runtime.schedulers import FlowEuler, sigmas

PROMPTS = ["a photo of a cat", "the end <|endoftext|> of it", "word " * 300, "wow!! a !cat!"]
STEPS = 5


@pytest.fixture(scope="module")
def family(families: Mapping[str, Family]) -> Family:
    return families["sd3"]


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    found = StableDiffusion3Pipeline.from_pretrained(folder, use_safetensors=True, vae=None)
    found.set_progress_bar_config(disable=True)
    return found


# what the transformer is told, and what it says, by diffusers' own pipeline


@torch.no_grad()
@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_embeds_as_the_pipeline_does(pipeline: Any, model: StableDiffusion3, prompt: str) -> None:
    told, empty, pooled, empty_pooled = pipeline.encode_prompt(prompt, None, None, device="cpu")
    for found, wanted in zip(model.embed([prompt]), (told, pooled), strict=True):
        torch.testing.assert_close(found, wanted)
    for found, wanted in zip(model.embed_empty(), (empty, empty_pooled), strict=True):
        torch.testing.assert_close(found, wanted)
    assert told.shape[1] == model.tokens


@torch.no_grad()
def test_the_first_magnitude_is_the_pipelines(pipeline: Any, model: StableDiffusion3) -> None:
    """Of pure noise the predicted picture is x - v, so that ||dx0|| is ||dv||."""
    noise = noise_bank(1, model.latent_shape, seed=5)
    outputs: list[torch.Tensor] = []
    hook = pipeline.transformer.register_forward_hook(lambda *args: outputs.append(args[2][0]))
    pipeline(PROMPTS[0], latents=noise, height=64, width=64, num_inference_steps=1,
             guidance_scale=5.0, output_type="latent")  # fmt: skip
    hook.remove()
    uncond, cond = outputs[0]
    found = magnitudes(model, [PROMPTS[0]], noise, inference_steps=1)[0, 0, 0]
    torch.testing.assert_close(found, torch.linalg.vector_norm(cond - uncond))


SHIFTS: list[dict[str, Any]] = [
    {},
    {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64},
    {"use_dynamic_shifting": True, "time_shift_type": "linear"},
]


@torch.no_grad()
@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: str(shift.get("time_shift_type", "")))
def test_all_of_sampling_is_the_pipelines(
    pipeline: Any, model: StableDiffusion3, shift: dict[str, Any]
) -> None:
    """Timesteps, levels and the picture, whatever shifts them; in PyTorch, and the runtime's."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **shift)
    own = StableDiffusion3(
        model.id, model.tokenizer, model.text_encoder, model.tokenizer_2, model.text_encoder_2,
        model.transformer, scheduler, model.tokenizer_3, model.text_encoder_3,
    )  # fmt: skip
    noise = noise_bank(1, model.latent_shape, seed=5)
    before = pipeline.scheduler
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    wanted = pipeline(PROMPTS[0], latents=noise, height=64, width=64, num_inference_steps=STEPS,
                      guidance_scale=5.0, output_type="latent").images  # fmt: skip
    levels, pipeline.scheduler = pipeline.scheduler.sigmas, before
    told = own.embed([PROMPTS[0]])
    steps = list(denoise(own, told, noise, inference_steps=STEPS, guidance=5.0))
    torch.testing.assert_close(steps[-1].latents, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigmas(own.scheduler_record(STEPS)), levels.numpy(), rtol=1e-6)


def test_without_a_t5(tmp_path: Path) -> None:
    """Zeros stand for what it would say; all of it is compared with diffusers' pipeline."""
    build_sd3().save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert "text_encoder_3" not in model.parts
    assert list(model.tokenizers) == ["tokenizer", "tokenizer_2"]
    check_against_pipeline(model, 5.0, STEPS)
    embeds, _ = model.embed(["a cat"])
    assert embeds.shape == (1, 77 + 256, 72)
    assert not embeds[:, 77:].any()


@torch.no_grad()
def test_one_zero_stands_for_those_of_an_absent_t5(tmp_path: Path) -> None:
    """diffusers' own attention, to all 256, is the witness; what is no zero is not overlooked."""
    build_sd3().save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    bank, noises = noise_bank(2, model.latent_shape, seed=1), torch.arange(2)
    expected = measure_at(model, PROMPTS[:2], bank, 1000, taps=model.auto_taps())
    graph = ScreenGraph(model, bank, 1000, model.auto_taps())
    read = []
    block = graph.unet.network.transformer_blocks[0]
    block.register_forward_pre_hook(
        lambda _, __, given: read.append(given["encoder_hidden_states"].shape[1]), with_kwargs=True
    )
    embeds, pooled = model.embed(PROMPTS[:2])
    found, norms = graph((embeds, pooled), noises)
    torch.testing.assert_close(torch.cat([found[..., None], norms], -1), expected)
    assert read == [78]
    embeds[1, -1, 0] = 1e-3
    found, norms = graph((embeds, pooled), noises)
    assert found[0].isfinite().all()
    assert norms[0].isfinite().all()
    assert found[1].isnan().all()
    assert norms[1].isnan().all()


# the bundle


def test_what_the_bundle_says(screener: Screener) -> None:
    manifest = screener.bundle.manifest
    assert (manifest.model.family, manifest.model.prediction_type) == ("sd3", "flow_prediction")
    assert (manifest.unit, manifest.timestep, manifest.tokens) == ("x0", 1000, 333)
    assert manifest.encodes_apart
    assert isinstance(manifest.scheduler, FlowEuler)
    assert manifest.taps == ("transformer_blocks.0", "transformer_blocks.1")
    first, second, *_ = screener.timesteps
    assert (first, second % 1 > 0) == (1000, True)  # no whole numbers


@pytest.mark.parametrize("graph", ["screen", "text_encoder"])
def test_tensorrt_for_rtx_builds_it(bundle: Path, graph: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    assert check_plan(Bundle.open(bundle), graph).startswith("TensorRT for RTX ")


def test_each_encoder_reads_what_its_own_tokenizer_gives(
    model: StableDiffusion3, bundle: Path
) -> None:
    prompts = [*odd_strings(), *PROMPTS, ""]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    np.testing.assert_array_equal(found.ids, model.tokenize(prompts).numpy())
    assert model.tokenizer_3 is not None
    lengths = map(len, model.tokenizer_3(prompts).input_ids)
    assert found.truncated == tuple(length > 256 for length in lengths)


@torch.no_grad()
def test_taps_are_of_the_image_stream(model: StableDiffusion3, screener: Screener) -> None:
    """By plain hooks, one prompt at a time."""
    seen: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *args: seen.append(args[2][1]))
        for block in model.transformer.transformer_blocks
    ]
    noise = torch.from_numpy(screener.bundle.noise_bank())[:1]
    for embeds in (model.embed([PROMPTS[0]]), model.embed_empty()):
        model.predict(noise, 1000, embeds)
    for hook in hooks:
        hook.remove()
    assert seen[0].shape == (1, 16, 32)  # patches of 2x2
    expected = [float((seen[k] - seen[k + 2]).norm()) for k in range(2)]
    found = screener.first_step_taps(PROMPTS[:1], noises=1)[0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_other_engines_agree_at_later_steps(
    bundle: Path, model: StableDiffusion3, screener: Screener
) -> None:
    steps = screener.trajectory(PROMPTS[:2], steps=2, noises=1)
    for backend in ("openvino", TorchBackend(model)):
        with Screener.open(bundle, backend=backend, graphs=("step",)) as other:
            again = other.trajectory(PROMPTS[:2], steps=2, noises=1)
            assert relative_error(again, steps, screener.smallest_magnitude).max() < 1e-4


def test_a_detector_from_end_to_end(screener: Screener) -> None:
    """Screened, calibrated, and judged; told in words where it is timed."""
    benign = [f"a cat, number {i}" for i in range(40)]
    alone = Detector(screener, uncalibrated="score")
    found = calibrate(alone, benign, steps=(1, 2), noises=(1,), fpr=0.1, delta=0.2)
    detector = Detector(screener, CalibrationFile(tuple(found)))
    for steps in (1, 2):
        [cat, empty] = detector.screen(["a cat, number 3", ""], steps=steps, noises=1)
        assert cat.memorized is False
        assert cat.rms == pytest.approx(cat.score / (4 * 8 * 8) ** 0.5)
        assert (empty.memorized, empty.empty) == (None, True)
    long, longer = detector.screen(["word " * 100, "word " * 300], noises=1)
    assert (long.truncated, longer.truncated) == (False, True)
    assert "Only its first 255 tokens" in longer.notes[0]
    assert stages(alone, ["a cat"], rounds=1, warmup=0)["whole"] > 0
    learned = calibrate(Detector(screener, detector="taps"), [*benign, *PROMPTS], noises=(1,),
                        fpr=0.2, delta=0.3)  # fmt: skip
    taps = Detector(screener, CalibrationFile(tuple(learned)), detector="taps")
    assert taps.screen(["a cat"], noises=1)[0].memorized is not None


def test_embeddings_of_another_length(pipeline: Any, screener: Screener) -> None:
    told, _, pooled, _ = pipeline.encode_prompt(PROMPTS[0], None, None)
    detector = Detector(screener, uncalibrated="score")
    with pytest.raises(InputError, match="of 332 tokens, and the bundle takes 333"):
        detector.screen_embeddings(told[:, 1:], pooled)


# what is in the way


def test_options_that_it_does_not_take(folder: Path, model: StableDiffusion3) -> None:
    for options, words in (
        (
            LoadOptions(clip_skip=1),
            r"clip_skip cannot be read here\. What to do: leave clip_skip out",
        ),
        (
            LoadOptions(loras=(Lora(Path("a.safetensors")),), clip_skip=1),
            "LoRA adapters and clip_skip cannot.*unload_lora.*save_pretrained.*; leave clip_skip",
        ),
    ):
        with pytest.raises(InputError, match=words):
            load_model(folder, options=options)
    for size in ((3, 4), (14, 8)):
        with pytest.raises(InputError, match="patches of 2x2, 6 a side"):
            load_model(folder, options=LoadOptions(latent_size=size))
        with pytest.raises(InputError, match="multiples of 2, up to 12"):
            model.resized(size)
    with pytest.raises(InputError, match=r"told of 333 tokens.*any-length"):
        export_bundle(model, folder / "out", ExportOptions(any_length=True))
    with pytest.raises(ExportError, match="T5's ids are those of transformers 5"):
        export_bundle(model, folder / "out", ExportOptions(tokenizer="transformers-4"))
    for timestep in (0, 1001):
        with pytest.raises(InputError, match="timesteps 1 to 1000"):
            export_bundle(model, folder / "out", ExportOptions(timestep=timestep))


def test_the_papers_protocol_is_not_for_it(folder: Path) -> None:
    with pytest.raises(ExportError, match=r"family stable-diffusion-3.*those alone"):
        StableDiffusion.load(folder)


def test_the_filter_and_other_detectors_are_not_for_it(
    model: StableDiffusion3, screener: Screener
) -> None:
    judge = MemorizationFilter(model.scheduler, model.embed_empty()[0])
    x, told = torch.zeros(2, *model.latent_shape), model.embed(["a", "b"])[0]
    with pytest.raises(InputError, match=r"FlowMatchEulerDiscreteScheduler, predicts None"):
        judge(lambda *_, **__: x, x, torch.tensor([1, 2]), told, x)
    with pytest.raises(InputError, match="CLIP's and T5's"):
        Gradient(model)
    for name, each in DETECTORS.items():
        if name == "magnitude" or each.draws:
            continue
        with pytest.raises(InputError, match=f"{name}' is of noise predictions.*of a flow"):
            Detector(screener, detector=name)
    with pytest.raises(InputError, match="longer than the 75 tokens that CLIP reads"):
        read(screener.tokenizer, "word " * 100)
    with pytest.raises(InputError, match="takes what its text encoder says"):
        graph_files(screener.bundle, ModelOptions())


def test_a_bundle_without_its_third_tokenizer(bundle: Path, tmp_path: Path) -> None:
    old = shutil.copytree(bundle, tmp_path / "old")
    fields = json.loads((old / "manifest.json").read_text())
    fields["tokenizer_3"]["rows"] = 10
    (old / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match=r"tokenizer_3.*beyond the text encoder's 10"):
        Screener.open(old)


def test_on_the_command_line(bundle: Path, run: Run) -> None:
    shown = run("inspect", bundle).out
    assert "Euler's steps along a flow, 5 steps, guidance 5.0" in shown
    assert "x0 units" in shown
    assert "ids of transformers-5's T5Tokenizer, 256 a prompt" in shown
    assert which_detectors("all", "onnxruntime", bundle, None) == ["magnitude", "taps"]


def test_a_tokenizer_that_is_no_file(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    (other / "tokenizer_3" / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"has no tokenizer.json.*sentencepiece"):
        load_model(other)
    (other / "tokenizer_3" / "tokenizer.json").write_text("{}")
    with pytest.raises(ExportError, match="are no tokenizer's"):
        load_model(other)

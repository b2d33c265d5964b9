"""Stable Diffusion XL: two text encoders, a pooled embedding, size and crop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_kernels import lacking
from diffusers import StableDiffusionXLPipeline
from odd_prompts import odd_strings
from pipelines import build_xl
from shared import Shared
from transformers import (
    CLIPTokenizer,
)

from benchmarks.rows import cached_step, paper_step
from mnemoscope import Detector, ExportError, InputError
from mnemoscope.screening.chunks import embed_chunks
from mnemoscope_export import (
    ExportOptions,
    StableDiffusion,
    StableDiffusionXL,
    export_bundle,
    magnitudes,
    noise_bank,
)
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_runtime import Bundle, IntegrityError, Screener, tokenizer_of
from mnemoscope_runtime.backends.tensorrt.build import check_plan

PROMPTS = ["a photo of a cat", "", "the end <|endoftext|> of it", "word " * 100, "wow!! a !cat!"]
T, SIZE = 601, (4, 6)  # of the bundle: the sampler begins at 981, the model has 8x8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sdxl")
    build_xl(small=True).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> StableDiffusionXL:
    found = StableDiffusion.load(folder)
    assert isinstance(found, StableDiffusionXL)
    return found


@pytest.fixture(scope="module")
def bundle(folder: Path, shared: Shared) -> Path:
    """One with everything: taps, another size and timestep, embeddings of any length."""
    options = ExportOptions(
        noises=2,
        seed=3,
        timestep=T,
        latent_size=SIZE,
        taps=["up_blocks.0.resnets.0", "up_blocks.0.resnets.1"],
        any_length=True,
    )
    return shared(
        "bundle/sdxl",
        lambda out: export_bundle(lambda: StableDiffusion.load(folder), out, options),
    )


def test_the_first_step_and_its_taps(bundle: Path, model: StableDiffusionXL) -> None:
    bank = noise_bank(2, (4, *SIZE), seed=3)
    with Screener.open(bundle) as screener:
        assert screener.taps[-1] == "up_blocks.0.resnets.1"
        expected = measure_at(model.resized(SIZE), PROMPTS, bank, T, taps=screener.taps).numpy()
        np.testing.assert_allclose(screener.first_step(PROMPTS), expected[..., 0], rtol=1e-4)
        np.testing.assert_allclose(screener.first_step_taps(PROMPTS), expected[..., 1:], rtol=1e-4)


def test_what_was_loaded(model: StableDiffusionXL) -> None:
    assert model.family == "sdxl"
    assert model.embeddings == ("prompt_embeds", "pooled_embeds")
    assert model.zero_empty
    assert not any(p.requires_grad for p in model.text_encoder_2.parameters())


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_embeds_as_the_pipeline_does(folder: Path, model: StableDiffusionXL, prompt: str) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, use_safetensors=True)
    embeds, zeros, pooled, zero_pooled = pipeline.encode_prompt(prompt, device="cpu")
    found, found_pooled = model.embed([prompt])
    torch.testing.assert_close(found, embeds)
    torch.testing.assert_close(found_pooled, pooled)
    for empty, expected in zip(model.embed_empty(), (zeros, zero_pooled), strict=True):
        torch.testing.assert_close(empty, expected)


@torch.no_grad()
def test_the_first_magnitude_is_the_pipelines(folder: Path, model: StableDiffusionXL) -> None:
    """What diffusers' own pipeline feeds its UNet at the first step gives the same magnitude."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.scheduler = model.sampler()
    noise = noise_bank(1, model.latent_shape, seed=5)
    outputs: list[torch.Tensor] = []
    pipeline.unet.register_forward_hook(lambda *args: outputs.append(args[2][0]))
    pipeline(  # its own size, which the UNet is told too: 16 pixels, by its VAE
        PROMPTS[0], latents=noise, num_inference_steps=50, guidance_scale=7.5,
        output_type="latent", callback_on_step_end=_stop,
    )  # fmt: skip
    uncond, cond = outputs[0]
    expected = torch.linalg.vector_norm(cond - uncond)
    found = magnitudes(model, [PROMPTS[0]], noise)[0, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def _stop(pipeline: StableDiffusionXLPipeline, *_: object) -> dict[str, object]:
    pipeline._interrupt = True
    return {}


def test_the_bundle_agrees_with_pytorch(model: StableDiffusionXL, bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert lacking(bundle) == set()
    assert manifest.embeddings == model.embeddings
    assert manifest.zero_empty
    assert manifest.noise_bank.shape == (2, 4, *SIZE)
    with Screener.open(bundle) as screener:
        noises = torch.from_numpy(Bundle.open(bundle).noise_bank())
        expected = magnitudes(model.resized(SIZE), PROMPTS, noises, steps=3).numpy()
        found = screener.trajectory(PROMPTS, steps=3)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert screener.probe() < 1e-4


def test_bfloat16_comes_close(model: StableDiffusionXL, folder: Path) -> None:
    """In PyTorch; test_pixart.py exports in it, and test_taps.py a UNet in float16."""
    half = StableDiffusion.load(folder, dtype=torch.bfloat16)
    noises = noise_bank(1, model.latent_shape, seed=0)
    exact = magnitudes(model, PROMPTS[:1], noises, steps=2)
    found = magnitudes(half, PROMPTS[:1], noises, steps=2)
    torch.testing.assert_close(found, exact, rtol=0.15, atol=0)
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("graph", ["screen", "text_encoder"])
def test_tensorrt_for_rtx_builds_it(bundle: Path, graph: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    assert check_plan(Bundle.open(bundle), graph).startswith("TensorRT for RTX ")


def test_every_operator_runs_on_cuda_in_float16(bundle: Path) -> None:
    """The other family is exported in it; what this one has more is arithmetic of the same kind."""
    assert lacking(bundle, halved=True) == set()


def test_the_benchmark_of_gpus_measures_what_the_reference_does(model: StableDiffusionXL) -> None:
    """Two text encoders, and a UNet that is told more than what either says."""
    noise = noise_bank(1, model.latent_shape, seed=5)
    given = model, PROMPTS[0], noise.numpy(), T
    rows = {**paper_step(*given), **cached_step(*given)}
    expected = float(measure_at(model, PROMPTS[:1], noise, T))
    assert [row() for row in rows.values()] == pytest.approx([expected] * 2, rel=1e-4)


def test_the_empty_prompt_is_not_what_the_unconditional_branch_gets(bundle: Path) -> None:
    with Detector.load(bundle, uncalibrated="score") as detector:
        assert detector.screen([""])[0].score > 0.01


def test_an_encoded_empty_prompt(folder: Path, tmp_path: Path) -> None:
    """Pipelines saved without `force_zeros_for_empty_prompt` embed it: then its magnitude is 0."""
    other = tmp_path / "model"
    shutil.copytree(folder, other)
    index = other / "model_index.json"
    text = json.loads(index.read_text())
    index.write_text(json.dumps({**text, "force_zeros_for_empty_prompt": False}))
    model = StableDiffusion.load(other)
    assert not model.zero_empty
    noise = noise_bank(1, model.latent_shape, seed=0)
    empty, cat = magnitudes(model, ["", "a cat"], noise, steps=2)
    assert (empty <= 1e-3 * cat).all()


def test_two_lengths_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(folder, other)
    file = other / "tokenizer_2" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 40}))
    with pytest.raises(ExportError, match="tokenizers of 77 and 40 tokens"):
        StableDiffusion.load(other)


def test_each_encoder_reads_what_its_own_tokenizer_gives(folder: Path, bundle: Path) -> None:
    theirs = [CLIPTokenizer.from_pretrained(folder, subfolder=f"tokenizer{n}") for n in ("", "_2")]
    prompts = odd_strings()
    wanted = [t(prompts, padding="max_length", truncation=True, max_length=77) for t in theirs]
    found = tokenizer_of(Bundle.open(bundle)).encode(prompts)
    for half, each in zip(np.split(found.ids, 2, axis=1), wanted, strict=True):
        np.testing.assert_array_equal(half, each.input_ids)
    bodies = np.array([half[:, 1:].tolist() for half in np.split(found.ids, 2, axis=1)])
    assert (bodies[0] != bodies[1]).any()
    lengths = [[len(ids) > 77 for ids in t(prompts).input_ids] for t in theirs]
    assert found.truncated == tuple(map(any, zip(*lengths, strict=True)))


def test_a_bundle_with_one_tokenizer_is_refused(bundle: Path, tmp_path: Path) -> None:
    old = shutil.copytree(bundle, tmp_path / "old")
    fields = json.loads((old / "manifest.json").read_text())
    fields |= {"schema": 1}
    del fields["tokenizer_2"]
    (old / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match=r"reads other ids.*Export the model again"):
        Screener.open(old)


def test_the_unet_is_told_the_size_of_its_latents(model: StableDiffusionXL) -> None:
    told: list[list[float]] = []
    hook = model.unet.register_forward_pre_hook(
        lambda _, __, named: told.append(named["added_cond_kwargs"]["time_ids"].tolist()),
        with_kwargs=True,
    )
    try:
        smaller = model.resized((4, 6))
        assert smaller.latent_shape == (4, 4, 6)
        magnitudes(smaller, ["a"], noise_bank(1, smaller.latent_shape, seed=0))
    finally:
        hook.remove()
    assert told == [[[8, 12, 0, 0, 8, 12]] * 2]  # this VAE doubles once


@torch.no_grad()
def test_chunks_are_embedded_side_by_side_and_pooled_from_the_first(
    folder: Path, bundle: Path
) -> None:
    """Against diffusers' own embeddings of each chunk, and its UNet."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, use_safetensors=True)
    words = " ".join(["cat"] * 75), "a dog in a red hat"
    parts = [pipeline.encode_prompt(part, device="cpu") for part in words]
    told, pooled = torch.cat([part[0] for part in parts], 1), parts[0][2]
    with Screener.open(bundle) as screener:
        found = embed_chunks(screener, [" ".join(words)])
        for mine, theirs in zip(found.embeds, (told, pooled), strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)
        assert not any(each.any() for each in found.empty)  # force_zeros_for_empty_prompt
        noise = torch.from_numpy(screener.bundle.noise_bank())
        height, width = (pipeline.vae_scale_factor * side for side in SIZE)
        times = torch.tensor([[height, width, 0, 0, height, width]]).float()
        cond, uncond = (
            pipeline.unet(
                noise,
                T,
                each.expand(2, -1, -1),
                added_cond_kwargs={
                    "text_embeds": one.expand(2, -1),
                    "time_ids": times.expand(2, -1),
                },
            ).sample
            for each, one in ((told, pooled), (0 * told, 0 * pooled))
        )
        expected = (cond - uncond).flatten(1).norm(dim=1).numpy()
        np.testing.assert_allclose(screener.first_step(found)[0], expected, rtol=1e-4)
        with pytest.raises(InputError, match="pooled_embeds is missing"):
            screener.embeddings(told)
        with pytest.raises(InputError, match="1 and 2 rows"):
            screener.embeddings(told, pooled.expand(2, -1))
        with pytest.raises(InputError, match="empty_pooled_embeds is missing"):
            screener.embeddings(told, pooled, empty_embeds=told)

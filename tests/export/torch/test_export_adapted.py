"""A bundle of a model with all that people put on top; the witness is diffusers' pipeline."""

from __future__ import annotations

import copy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import write_embedding, write_lora
from cli_support import Run, failed
from diffusers import StableDiffusionPipeline
from one_block import one_block
from pipelines import build_pipeline
from shared import Shared

from mnemoscope import BundleError, IntegrityError
from mnemoscope.cli import main
from mnemoscope_export import Embedding, LoadOptions, Lora, StableDiffusion, TorchBackend
from mnemoscope_runtime import Bundle, Screener

PROMPTS = ["a photo of <toy> on a shelf", "a cat", ""]
NEGATIVE = "blurry <toy>, bad"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "epsilon"
    build_pipeline("epsilon", unet=one_block()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LoRA and a textual inversion of three vectors."""
    folder = tmp_path_factory.mktemp("files")
    lora, embedding = folder / "style.safetensors", folder / "toy.safetensors"
    write_lora(StableDiffusionPipeline.from_pretrained(model_dir, safety_checker=None), lora)
    write_embedding(embedding, 32, vectors=3)
    return lora, embedding


@pytest.fixture(scope="module")
def options(files: tuple[Path, Path]) -> LoadOptions:
    lora, embedding = files
    return LoadOptions(
        loras=(Lora(lora, 0.7),), embeddings=(Embedding(embedding),), clip_skip=1, negative=NEGATIVE
    )


@pytest.fixture(scope="module")
def bundle_path(model_dir: Path, files: tuple[Path, Path], shared: Shared) -> Path:
    """Written by the command line."""

    def export(out: Path) -> None:
        arguments = [
            "mnemoscope", "export", model_dir, out, "--noises", "2", "--lora", f"{files[0]}:0.7",
            "--embedding", files[1], "--clip-skip", "1", "--negative", NEGATIVE,
        ]  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", list(map(str, arguments)))
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code

    return shared("adapted", export)


def test_the_manifest_says_all_of_it(bundle_path: Path, run: Run) -> None:
    record = Bundle.open(bundle_path).manifest.model
    assert [(a.kind, a.file, a.scale) for a in record.adapters] == [
        ("embedding", "toy.safetensors", 1.0),
        ("lora", "style.safetensors", 0.7),
    ]
    assert all(len(a.sha256) == 64 for a in record.adapters)
    toy = record.adapters[0]
    assert (toy.token, toy.vectors) == ("<toy>", 3)
    assert (record.clip_skip, record.negative, record.variant) == (1, NEGATIVE, None)
    result = run("inspect", bundle_path)
    words = (
        "lora style.safetensors",
        "scale 0.7",
        "embedding toy.safetensors",
        "'<toy>', 3 vector",
    )
    for each in (*words, NEGATIVE):
        assert each in result.out


@torch.no_grad()
def test_it_measures_what_the_pipeline_predicts(
    bundle_path: Path, model_dir: Path, files: tuple[Path, Path]
) -> None:
    pipe: Any = StableDiffusionPipeline.from_pretrained(model_dir, safety_checker=None)
    pipe.load_textual_inversion(str(files[1].parent), weight_name=files[1].name)
    pipe.load_lora_weights(str(files[0].parent), weight_name=files[0].name, adapter_name="style")
    pipe.set_adapters(["style"], [0.7])
    if not hasattr(pipe.text_encoder, "text_model"):  # diffusers looks for the last norm there
        pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    embeds, told = pipe.encode_prompt(
        PROMPTS, "cpu", 1, do_classifier_free_guidance=True,
        negative_prompt=[NEGATIVE] * len(PROMPTS), clip_skip=1,
    )  # fmt: skip
    bundle = Bundle.open(bundle_path)
    bank = torch.from_numpy(bundle.noise_bank())
    expected = np.empty((len(PROMPTS), len(bank)), np.float32)
    for i, j in np.ndindex(expected.shape):
        cond, uncond = (
            pipe.unet(bank[j : j + 1], 981, each[i : i + 1]).sample for each in (embeds, told)
        )
        expected[i, j] = torch.linalg.vector_norm(cond - uncond)
    with Screener.open(bundle_path, threads=1) as screener:
        np.testing.assert_allclose(screener.first_step(PROMPTS), expected, rtol=1e-4)
        walked = screener.trajectory(PROMPTS, steps=1)[:, :, 0]
        np.testing.assert_allclose(walked, expected, rtol=1e-4)


def test_pytorch_runs_it_only_with_the_same_model(
    bundle_path: Path, model_dir: Path, options: LoadOptions
) -> None:
    model = StableDiffusion.load(model_dir, options=options)
    with Screener.open(bundle_path, threads=1) as onnx:
        expected = onnx.first_step(PROMPTS)
    with Screener(Bundle.open(bundle_path), TorchBackend(model)) as screener:
        np.testing.assert_allclose(screener.first_step(PROMPTS), expected, rtol=1e-4)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"loras": ()}, "whose weights are not those"),
        ({"clip_skip": None}, "whose clip_skip, 1, is not that"),
        ({"negative": "other"}, "whose negative prompt, 'blurry"),
    ]
    for change, words in changes:
        other = StableDiffusion.load(model_dir, options=replace(options, **change))
        screener = Screener(Bundle.open(bundle_path), TorchBackend(other))
        with pytest.raises(BundleError, match=words):
            screener.first_step(["a cat"])


def test_what_the_unconditional_branch_is_told_is_checked(
    bundle_path: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(bundle_path, tmp_path / "copy")
    bundle = Bundle.open(copied)
    assert bundle.manifest.empty == "empty_embeds.npz"
    found = bundle.empty_embeds()
    assert found is not None
    assert found[0].shape == (1, 77, 32)
    np.savez_compressed(copied / "empty_embeds.npz", prompt_embeds=np.zeros((1, 9, 9), np.float32))
    odd = copy.copy(bundle)
    object.__setattr__(odd, "read", lambda name: (copied / name).read_bytes())
    with pytest.raises(IntegrityError, match="it is compressed"):
        odd.empty_embeds()
    for held in ({"other": found[0]}, {"prompt_embeds": np.full_like(found[0], np.nan)},
                 {"prompt_embeds": found[0].astype(np.float64)}):  # fmt: skip
        np.savez(copied / "empty_embeds.npz", **held)
        with pytest.raises(IntegrityError, match=r"empty_embeds\.npz"):
            odd.empty_embeds()
    with pytest.raises(IntegrityError):  # its hash is another now
        Bundle.open(copied)


@pytest.mark.parametrize("option", ["--lora", "--embedding", "--clip-skip", "--negative"])
def test_an_onnx_export_stays_what_it_is(run: Run, tmp_path: Path, option: str) -> None:
    value = "1" if option == "--clip-skip" else "x.safetensors"
    result = run("export", "--from-onnx", tmp_path, tmp_path / "out", option, value)
    failed(result, 2, f"{option} would change the PyTorch model")


def test_pictures_are_drawn_alike(
    run: Run, model_dir: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    common = ("generate", "a cat", "--model", model_dir, "--steps", "2")
    pictures = []
    for i, more in enumerate(((), ("--lora", files[0]), ("--negative", "x", "--clip-skip", "1"))):
        result = run(*common, "-o", tmp_path / f"{i}.png", *more)
        assert result.code == 0, result.err
        pictures.append((tmp_path / f"{i}.png").read_bytes())
    assert len(set(pictures)) == 3

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pipelines import build_pipeline
from predictions import both_models

from mnemoscope import ExportError, embedded
from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_export.models.hub import why_not_there
from mnemoscope_export.records import check_vocabulary
from mnemoscope_runtime import Bundle


@both_models
def test_loads_a_pipeline(model: StableDiffusion) -> None:
    assert model.latent_shape == (4, 8, 8)
    assert model.family == "sd1"
    assert model.embed(["a", "b"])[0].shape == (2, 77, 32)
    assert not any(p.requires_grad for p in model.unet.parameters())


def test_hash_follows_the_weights(model_dir: Path) -> None:
    one, same = StableDiffusion.load(model_dir), StableDiffusion.load(model_dir)
    assert one.weights_sha256() == same.weights_sha256()
    with torch.no_grad():
        next(same.unet.parameters()).view(-1)[0] += 1
    assert one.weights_sha256() != same.weights_sha256()


def test_no_such_directory_is_no_download() -> None:
    with pytest.raises(
        ExportError, match=r"no directory here.*HF_HUB_OFFLINE.*--local-dir"
    ) as told:
        StableDiffusion.load("nobody/no-such-model")
    assert "local_files_only" not in str(told.value)  # the advice of others, for others


def test_why_a_model_of_the_hub_is_not_there() -> None:
    """The hub's reason lies below what diffusers makes of it."""
    error = OSError("Please check out the root cause in the stacktrace above.")
    error.__cause__ = ConnectionError("Name or service not known.\nMore.")
    told = why_not_there("owner/name", error, offline=False)
    assert "could not be downloaded: Name or service not known. Download it once" in told
    assert "`hf download owner/name --local-dir DIR`" in told
    gone = why_not_there("owner/name", OSError("404 Client Error"), offline=False)
    assert "could not be downloaded: 404 Client Error. " in gone


def test_directory_without_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model_index\.json"):
        StableDiffusion.load(tmp_path)


def test_pickled_weights_are_not_read(model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ExportError, match="safetensors"):
        StableDiffusion.load(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "squaredcos_cap_v2"),
        ("timestep_spacing", "karras"),
        ("rescale_betas_zero_snr", True),
        ("trained_betas", [0.1] * 1000),
    ],
)
def test_unknown_schedules_are_refused(
    model_dir: Path, tmp_path: Path, key: str, value: object
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(ExportError, match=key):
        StableDiffusion.load(copy).scheduler_record()


def test_sample_prediction_is_refused() -> None:
    pipe = build_pipeline("sample")
    odd = StableDiffusion("odd", pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.scheduler)
    with pytest.raises(ExportError, match="'sample'"):
        _ = odd.prediction_type


def test_the_sampler_does_not_clip(model: StableDiffusion) -> None:
    model.scheduler.register_to_config(clip_sample=True)
    try:
        assert not model.sampler().config.clip_sample
    finally:
        model.scheduler.register_to_config(clip_sample=False)


@pytest.mark.parametrize("left", [None, (), ("vocab.json", "merges.txt")])
def test_a_model_without_tokenizer_files(
    model_dir: Path, tmp_path: Path, left: tuple[str, ...] | None
) -> None:
    """transformers 5 makes up a tokenizer of two tokens, and all magnitudes are zero."""
    copy = shutil.copytree(model_dir, tmp_path / "model")
    shutil.rmtree(copy / "tokenizer")
    if left is not None:
        (copy / "tokenizer").mkdir()
        for name in left:
            (copy / "tokenizer" / name).write_text("" if name == "merges.txt" else "{}")
    words = r"has neither vocab\.json and merges\.txt nor tokenizer\.json.*save_pretrained"
    with pytest.raises(ExportError, match=words):
        StableDiffusion.load(copy)


@pytest.mark.parametrize(
    ("tokens", "ends", "config", "is_right"),
    [
        (49408, (49406, 49407), {"bos_token_id": 0, "eos_token_id": 2}, True),  # as published
        (49408, (49406, 49407), {}, True),
        (49408, (49406, 49407), {"vocab_size": 49500, "eos_token_id": 2}, True),  # padding
        (1924, (1922, 1923), {"bos_token_id": 1922, "eos_token_id": 1923}, True),
        (2, (0, 1), {"bos_token_id": 0, "eos_token_id": 2}, False),
        (1924, (1922, 1923), {}, False),
        (1924, (1922, 1923), {"bos_token_id": 0, "eos_token_id": 2}, False),
    ],
)
def test_the_tokenizer_of_another_model(
    tokens: int, ends: tuple[int, int], config: dict[str, int], is_right: bool
) -> None:
    if is_right:
        check_vocabulary(tokens, ends, config, "it")
        return
    with pytest.raises(ExportError, match="another one's, or only part of it"):
        check_vocabulary(tokens, ends, config, "it")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "version"),
        ("tokenizer_config.json", '{"bos_token": 3}'),
        ("tokenizer_config.json", '{"eos_token": null}'),
        ("special_tokens_map.json", "[1]"),
    ],
)
def test_damaged_files_of_a_tokenizer(
    model_dir: Path, tmp_path: Path, name: str, text: str
) -> None:
    copy = shutil.copytree(model_dir, tmp_path / "model")
    (copy / "tokenizer" / name).write_text(text)
    with pytest.raises(ExportError, match=r"tokenizer (are no tokenizer's|has no start).* Copy"):
        StableDiffusion.load(copy)


def test_the_tokenizer_of_another_model_is_not_loaded(model_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model_dir, tmp_path / "model")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    shutil.rmtree(copy / "tokenizer")
    (copy / "tokenizer").mkdir()
    (copy / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (copy / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ExportError, match="has 2 tokens for the 1,924 embeddings"):
        StableDiffusion.load(copy)


@pytest.mark.parametrize("name", ["nope", "./nope", "/nope/at/all", "~/nope", "a/b/c", "-/x"])
def test_a_name_that_is_neither_path_nor_hub_id(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused at once: a mistyped path must not go to the network."""
    monkeypatch.setattr("mnemoscope_export.models.loading.DiffusionPipeline", None)
    with pytest.raises(ExportError, match="is no directory, and no hub id"):
        StableDiffusion.load(name)


@pytest.mark.numeric
def test_the_embedded_model_measures_what_its_bundle_does() -> None:
    """With whatever versions of transformers and diffusers are installed."""
    bundle = Bundle.open(embedded.BUNDLE)
    model, noise = StableDiffusion.load(embedded.MODEL), torch.from_numpy(bundle.noise_bank()[:1])
    caption = "google icon of tokyo tower, on rings, in zagreb 2020"
    assert magnitudes(model, [caption], noise).item() == pytest.approx(2.7822, rel=1e-4)
    assert model.weights_sha256() == bundle.manifest.model.weights_sha256

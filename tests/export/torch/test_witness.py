"""diffusers' own pipeline is the witness: what is not as it says is not exported."""

from __future__ import annotations

import gc
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pipelines import build_xl
from predictions import both_models
from torch import Tensor
from torch.nn import Module
from transformers import CLIPTextModel

from mnemoscope import embedded
from mnemoscope_export import ExportOptions, LoadOptions, StableDiffusion, export_bundle, noise_bank
from mnemoscope_export.models import loading
from mnemoscope_export.models.checkpoint import load_network
from mnemoscope_export.torch import witness
from mnemoscope_export.torch.reference import measure
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import ExportError, NumericsError


@both_models
def test_what_is_right_passes(model: StableDiffusion) -> None:
    check_against_pipeline(model, 7.5)
    check_against_pipeline(model, 1.0)
    check_against_pipeline(replace(model, source=None), 7.5)


def test_the_embedded_model() -> None:
    check_against_pipeline(StableDiffusion.load(embedded.MODEL), 7.5)


@pytest.mark.slow
def test_stable_diffusion_xl(tmp_path: Path) -> None:
    build_xl(depth=2).save_pretrained(tmp_path)
    model = StableDiffusion.load(tmp_path)
    for each in (model, model.resized((4, 6)), replace(model, source=None)):
        check_against_pipeline(each, 7.5)
    with pytest.raises(ExportError, match="embedding of the unconditional branch is off"):
        check_against_pipeline(replace(model, force_zeros_for_empty_prompt=False), 7.5)
    with pytest.raises(ExportError, match="network's prediction is off"):
        check_against_pipeline(replace(model, pixels=4), 7.5)


def test_there_are_never_more_than_two_of_a_part(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers' text encoders are gone when its network comes, though no garbage is collected."""
    load, held, left = witness._load, list[ref[Any]](), list[int]()

    def watched(model: Any, *, text: bool) -> Any:
        left.append(sum(each() is not None for each in held))
        pipeline = load(model, text=text)
        held.extend(ref(each) for each in pipeline.components.values() if isinstance(each, Module))
        return pipeline

    monkeypatch.setattr(witness, "_load", watched)
    gc.disable()
    try:
        check_against_pipeline(StableDiffusion.load(model_dir), 7.5)
    finally:
        gc.enable()
    assert left == [0, 0]
    assert held


def test_random_weights_are_noticed(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers 5.5.4 would, if nothing compared weights with files."""

    def careless(kind: Any, folder: Path, **options: Any) -> Any:
        network = load_network(kind, folder, **options)
        return CLIPTextModel(network.config).eval() if kind is CLIPTextModel else network

    monkeypatch.setattr(loading, "load_network", careless)
    with pytest.raises(ExportError, match=r"diffusers' own pipeline .* embedding of a prompt is"):
        export_bundle(lambda: StableDiffusion.load(model_dir), tmp_path / "out", ExportOptions())
    assert list(tmp_path.iterdir()) == []


class WrongLayer(StableDiffusion):
    """Takes what comes before the last layer."""

    def encode(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        return (self.text_encoder(input_ids, output_hidden_states=True).hidden_states[-2],)


def wrong_layer(model: StableDiffusion) -> StableDiffusion:
    return WrongLayer(**{field.name: getattr(model, field.name) for field in fields(model)})


def wrong_padding(model: StableDiffusion) -> StableDiffusion:
    model.tokenizer.pad_token = "!"
    return model


def wrong_prediction(model: StableDiffusion) -> StableDiffusion:
    model.scheduler.register_to_config(prediction_type="v_prediction")
    return model


def wrong_offset(model: StableDiffusion) -> StableDiffusion:
    model.scheduler.register_to_config(steps_offset=0)
    return model


def wrong_schedule(model: StableDiffusion) -> StableDiffusion:
    model.scheduler.register_to_config(beta_end=0.02)
    return model


def wrong_unet(model: StableDiffusion) -> StableDiffusion:
    next(model.unet.parameters()).mul_(1.01)
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_layer, "embedding of a prompt is off by"),
        (wrong_padding, "embedding of a prompt is off by"),
        (wrong_prediction, "first step of sampling is off by"),
        (wrong_schedule, "first step of sampling is off by"),
        (wrong_offset, "first timestep is 981, not 980"),
        (wrong_unet, "network's prediction is off by"),
        (lambda model: replace(model, negative="a dog"), None),
        (lambda model: replace(model, clip_skip=1), None),
    ],
)
@torch.no_grad()
def test_what_is_not_as_the_pipeline_does_is_named(
    model_dir: Path, change: Callable[[StableDiffusion], StableDiffusion], words: str | None
) -> None:
    changed = change(StableDiffusion.load(model_dir))
    if words is None:  # what the pipeline is told too
        check_against_pipeline(changed, 7.5)
        return
    with pytest.raises(ExportError, match=rf"not what diffusers' own pipeline .* {words}"):
        check_against_pipeline(changed, 7.5)


def edit(file: Path, **fields: Any) -> None:
    """Change a config; None leaves a field out."""
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.fixture(scope="module")
def xl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("witness") / "xl"
    build_xl().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", ["", "Img2Img", "Inpaint"])
@pytest.mark.parametrize("family", ["StableDiffusion", "StableDiffusionXL"])
def test_every_pipeline_that_is_covered(
    model_dir: Path, xl_dir: Path, tmp_path: Path, family: str, task: str
) -> None:
    """Also where it names a part without files, which none of them needs."""
    folder = shutil.copytree(xl_dir if family.endswith("XL") else model_dir, tmp_path / "model")
    encoder = ["transformers", "CLIPVisionModelWithProjection"]
    name = f"{family}{task}Pipeline"
    edit(folder / "model_index.json", _class_name=name, image_encoder=encoder)
    model = StableDiffusion.load(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_against_pipeline(model, 7.5)
    assert not [each for each in told if issubclass(each.category, FutureWarning)]


def test_files_of_half_the_precision(model_dir: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model_dir, safety_checker=None)
    pipeline.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    check_against_pipeline(StableDiffusion.load(tmp_path, options=LoadOptions("fp16")), 7.5)


@pytest.mark.parametrize("length", [None, 200])
def test_tokenizers_that_do_not_say_what_is_read(
    model_dir: Path, tmp_path: Path, length: int | None
) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=length)
    check_against_pipeline(StableDiffusion.load(folder), 7.5)


def test_fewer_timesteps_than_a_picture_has_elsewhere(model_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    edit(folder / "scheduler/scheduler_config.json", num_train_timesteps=40)
    model = StableDiffusion.load(folder)
    check_against_pipeline(model, 7.5, inference_steps=20)
    assert model.scheduler_record(40).num_train_timesteps == 40
    with pytest.raises(ExportError, match=r"on 40 timesteps, fewer than the 50 .*--inference-step"):
        model.scheduler_record(50)


def test_what_diffusers_cannot_run_is_no_traceback(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such part.\nA second line")

    model = StableDiffusion.load(model_dir)
    words = r"cannot {} epsilon: no such part\. Nothing shows .* nothing was written\. See that"
    for name, what in (("from_pretrained", "load"), ("encode_prompt", "embed prompts with"),
                       ("__call__", "draw with")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(StableDiffusionPipeline, name, fail)
            with pytest.raises(ExportError, match=words.format(what)):
                check_against_pipeline(model, 7.5)


def test_what_overflows_is_told_from_what_differs(model_dir: Path) -> None:
    model = StableDiffusion.load(model_dir)
    model.unet.conv_out.weight.fill_(1e38)
    with pytest.raises(ExportError, match=r"prediction of epsilon is NaN or infinite in .*float32"):
        check_against_pipeline(replace(model, source=None), 7.5)
    with pytest.raises(NumericsError, match="damaged: give the model as it was"):
        measure(model, ["a cat"], noise_bank(1, model.latent_shape, seed=0), steps=1)

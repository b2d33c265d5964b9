"""diffusers' own pipeline is the witness: what is not as it says is not exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_support import one_model
from test_sdxl import build_pipeline as build_xl
from torch import Tensor
from transformers import CLIPTextModel

from mnemoscope import embedded
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle
from mnemoscope_export.models import loading
from mnemoscope_export.models.checkpoint import load_network
from mnemoscope_export.witness import check_against_pipeline
from mnemoscope_runtime import ExportError


def test_what_is_right_passes(model: StableDiffusion) -> None:
    check_against_pipeline(model, 7.5)
    check_against_pipeline(model, 1.0)
    check_against_pipeline(replace(model, source=None), 7.5)


def test_the_embedded_model() -> None:
    check_against_pipeline(StableDiffusion.load(embedded.MODEL), 7.5)


def test_stable_diffusion_xl(tmp_path: Path) -> None:
    build_xl().save_pretrained(tmp_path)
    model = StableDiffusion.load(tmp_path)
    for each in (model, model.resized((4, 6)), replace(model, source=None)):
        check_against_pipeline(each, 7.5)
    with pytest.raises(ExportError, match="embedding of the unconditional branch is off"):
        check_against_pipeline(replace(model, force_zeros_for_empty_prompt=False), 7.5)
    with pytest.raises(ExportError, match="UNet's prediction is off"):
        check_against_pipeline(replace(model, pixels=4), 7.5)


@one_model
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


@one_model
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_layer, "embedding of a prompt is off by"),
        (wrong_padding, "embedding of a prompt is off by"),
        (wrong_prediction, "first step of sampling is off by"),
        (wrong_schedule, "first step of sampling is off by"),
        (wrong_offset, "first timestep is 981, not 980"),
        (wrong_unet, "UNet's prediction is off by"),
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

"""The arithmetic of a pass that stops, counted without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import build_pipeline

from benchmarks.families import random_model
from benchmarks.taps_flops import BLOCKS, count
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import Bundle

pytestmark = pytest.mark.slow


def test_counts_are_those_of_the_bundle(model: StableDiffusion, bundle_dir: Path) -> None:
    flops = Bundle.open(bundle_dir).manifest.flops
    found = count(model)
    assert found["text encoder"] == flops["text_encoder"]
    assert found["text encoder"] + found["screen"] == flops["screen"]
    assert found["screen"] < found["UNet"]  # what is folded is not counted
    layers = [name for name in found if name.startswith(BLOCKS)]
    assert layers == [name for name in model.tappable() if name.startswith(BLOCKS)]
    shares = [found[name] for name in layers]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < found["screen"]
    assert not any(module._forward_hooks for module in model.unet.modules())


@pytest.mark.slow
def test_no_weights_are_needed() -> None:
    counts = []
    for device in ("cpu", "meta"):
        pipe = build_pipeline("v_prediction")
        parts: dict[str, Any] = {"tokenizer": pipe.tokenizer, "scheduler": pipe.scheduler}
        networks = {"unet": pipe.unet.to(device), "text_encoder": pipe.text_encoder.to(device)}
        model = StableDiffusion(id="toy", **parts, **networks)
        counts.append(count(model, ("mid_block",)))
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_family_on_no_device() -> None:
    with torch.device("meta"):
        model = random_model("sd21")
        found = count(replace(model, latent_size=(8, 8)), ("up_blocks.0.resnets.0",))
    assert model.unet.device.type == "meta"
    assert found["up_blocks.0.resnets.0"] < found["screen"] / 2

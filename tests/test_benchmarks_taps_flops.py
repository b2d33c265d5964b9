"""The arithmetic of a pass that stops, counted without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cli_support import one_model
from pipelines import build_pipeline

from benchmarks.families import random_model
from benchmarks.taps_flops import BLOCKS, count
from mnemoscope_export import StableDiffusion
from mnemoscope_export.taps import tappable
from mnemoscope_runtime import Bundle


@one_model
def test_counts_are_those_of_the_bundle(model: StableDiffusion, bundle_dir: Path) -> None:
    flops = Bundle.open(bundle_dir).manifest.flops
    found = count(model)
    assert found["text encoder"] == flops["text_encoder"]
    assert found["text encoder"] + found["screen"] == flops["screen"]
    assert found["screen"] < found["UNet"]  # what is folded is not counted
    layers = [name for name in found if name.startswith(BLOCKS)]
    assert layers == [name for name in tappable(model.unet) if name.startswith(BLOCKS)]
    shares = [found[name] for name in layers]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < found["screen"]
    assert not any(module._forward_hooks for module in model.unet.modules())


def test_no_weights_are_needed() -> None:
    counts = []
    for device in ("cpu", "meta"):
        pipe = build_pipeline("v_prediction")
        parts: dict[str, Any] = {"tokenizer": pipe.tokenizer, "scheduler": pipe.scheduler}
        networks = {"unet": pipe.unet.to(device), "text_encoder": pipe.text_encoder.to(device)}
        counts.append(count(StableDiffusion(id="toy", **parts, **networks)))
    assert counts[0] == counts[1]


def test_a_family_on_no_device() -> None:
    with torch.device("meta"):
        model = random_model("sd21")
        found = count(replace(model, latent_size=(8, 8)), ("up_blocks.0.resnets.0",))
    assert model.unet.device.type == "meta"
    assert found["up_blocks.0.resnets.0"] < found["screen"] / 2

"""The embedded model in ComfyUI's layout, and a calibration of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkout_support import FOLDER, SHAPE, sample

from benchmarks.comfyui.checkout import comfy_clip, comfy_model, open_checkout
from integrations.comfyui.calibrating import calibrate_sampling
from mnemoscope import Calibration, embedded


@pytest.fixture(scope="module")
def pipe() -> Any:
    from mnemoscope.drawing.generate import load_pipeline

    return load_pipeline()


@pytest.fixture(scope="module")
def comfy(pipe: Any) -> tuple[Any, Any]:
    """MODEL and CLIP."""
    open_checkout(Path(FOLDER))
    model = comfy_model(pipe.unet, "EPS")
    config = embedded.MODEL / "text_encoder" / "config.json"
    return model, comfy_clip(pipe, embedded.MODEL / "tokenizer", config)


@pytest.fixture(scope="module")
def calibration(comfy: tuple[Any, Any]) -> Calibration:
    model, clip = comfy
    prompts = [row.prompt for row in embedded.read_prompts("calibration")][:60]
    return calibrate_sampling(
        model, clip, prompts, shape=SHAPE, sample=_as_node, fpr=0.05, delta=0.05
    )


def _as_node(model: Any, noise: torch.Tensor, positive: Any, negative: Any, _: int) -> Any:
    return sample(model, noise, positive, negative)

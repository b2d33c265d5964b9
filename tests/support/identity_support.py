"""What a guard is to notice: a pipeline of its own for every test, and adapters for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from guard_support import draw
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from pipelines import build_pipeline

PROMPTS = ["a cat"]


def adapter(seed: int) -> dict[str, torch.Tensor]:
    """LoRA weights in diffusers' own file format, of UNet and text encoder."""
    pipe = build_pipeline("epsilon")
    torch.manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets))
        for name, value in get_peft_model_state_dict(network).items():
            found[f"{part}.{name}"] = torch.randn_like(value)
    return found


@pytest.fixture(scope="module")
def lora() -> dict[str, torch.Tensor]:
    return adapter(1)


@pytest.fixture
def pipe() -> Any:
    """One of its own for every test, since they change it."""
    found = build_pipeline("epsilon")
    found.set_progress_bar_config(disable=True)
    return found


def predicted(pipe: Any) -> torch.Tensor:
    """What diffusers draws, no guard around it."""
    with torch.no_grad():
        return draw(pipe, PROMPTS, output_type="latent")


def loaded(pipe: Any, lora: dict[str, torch.Tensor], name: str = "style") -> None:
    pipe.load_lora_weights(dict(lora), adapter_name=name)

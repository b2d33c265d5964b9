"""Sampling as a checkout of ComfyUI does, where MNEMOSCOPE_COMFYUI names one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from integrations.comfyui.decision import Sampled
from integrations.comfyui.guard import guarded
from integrations.comfyui.watch import Watch

FOLDER = os.environ.get("MNEMOSCOPE_COMFYUI", "")
needs_checkout = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="MNEMOSCOPE_COMFYUI names no checkout of ComfyUI"),
]

TOWER, DOG = "google icon of tokyo tower, on rings, in zagreb 2020", "a dog in a red hat"
SHAPE = (1, 16, 8, 8)
STEPS = 4


def sample(model: Any, noise: torch.Tensor, positive: Any, negative: Any, **told: Any) -> Any:
    """As a KSampler does."""
    from comfy.sample import sample as draw  # type: ignore[import-not-found]

    call = {"steps": STEPS, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal"} | told
    latent = call.pop("latent_image", torch.zeros_like(noise))
    return draw(
        model, noise, positive=positive, negative=negative, latent_image=latent, seed=1,
        disable_pbar=True, **call,
    )  # fmt: skip


def noise_of(seed: int, images: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((images, *SHAPE[1:]), generator=generator)


def encoded(clip: Any, *texts: str) -> Any:
    found = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
    return [[torch.cat([each[0][0] for each in found]), found[0][0][1]]]


def seen(
    comfy: tuple[Any, Any], prompts: Sequence[str], guard: Watch, seed: int = 1, **told: Any
) -> Sampled:
    model, clip = comfy
    noise = noise_of(seed, len(prompts))
    drawn = sample(guard.attach(model), noise, encoded(clip, *prompts), encoded(clip, ""), **told)
    return guard.sampled(drawn)


def reporting(comfy: tuple[Any, Any], **told: Any) -> Watch:
    return guarded(*comfy, **{"mode": "report", "calibrations": ()} | told)

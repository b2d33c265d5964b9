"""Small pipelines and calibrations for tests of the guard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from calibrations import setting_threshold
from diffusers import DDIMScheduler
from pipelines import build_pipeline

from mnemoscope import Calibration, Detector
from mnemoscope.guard import Guard, calibrate_guard
from mnemoscope_runtime import Screener

BENIGN = [f"a photo of {i} cats" for i in range(12)]
PROMPTS = ["a cat", "a dog", "a house by the sea"]
STEPS = 4


def guarded_at(pipe: Any, threshold: float, **call: Any) -> Calibration:
    """A calibration of a pipeline whose threshold is set by hand; benign scores lie below it."""
    call = {"num_inference_steps": STEPS, "fpr": 0.5, "delta": 0.5, "batch": 3} | call
    found = calibrate_guard(pipe, BENIGN[:3], **call)
    scores = (0.0, *(setting_threshold(threshold),) * 2)  # one of three may lie above
    prompts = dict(zip(found.prompts, scores, strict=True))
    return Calibration.of(found.setting, prompts, fpr=found.fpr, delta=found.delta)


def seeded(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def draw(pipe: Any, prompts: Sequence[str], **call: Any) -> torch.Tensor:
    """Images as tensors, each from a seed of its own. # [B, 3, H, W]"""
    call = {
        "generator": seeded(len(prompts) * call.get("num_images_per_prompt", 1)),
        "num_inference_steps": STEPS,
        "output_type": "pt",
    } | call
    images: torch.Tensor = pipe(prompt=list(prompts), **call).images
    return images


def scores(pipe: Any, prompts: Sequence[str], **call: Any) -> list[float]:
    """What a guard that only looks measures."""
    steps = call.pop("steps", 1)
    with Guard(pipe, steps=steps, extra_pass=call.pop("extra_pass", False)) as guard:
        draw(pipe, prompts, **call)
    return [each.score for each in guard.decisions]


@contextmanager
def counted() -> Iterator[list[int]]:
    """Grows with every step of DDIM that pipelines begin; the UNet is left alone."""
    calls: list[int] = []
    original = DDIMScheduler.scale_model_input

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self) is DDIMScheduler:  # not in a guard's trial of another one
            calls.append(1)
        return original(self, *args, **kwargs)

    with mock.patch.object(DDIMScheduler, "scale_model_input", counting):
        yield calls


def between(values: Sequence[float], below: int) -> float:
    """A threshold with that many of the values below it."""
    ordered = sorted(values)
    return (ordered[below - 1] + ordered[below]) / 2


@pytest.fixture(scope="module")
def pipe() -> Any:
    found = build_pipeline("epsilon")
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def one(pipe: Any) -> tuple[Any, int]:
    """A calibration that flags one of PROMPTS, and which."""
    found = scores(pipe, PROMPTS)
    return guarded_at(pipe, between(found, 2)), int(np.argmax(found))


@pytest.fixture(scope="module")
def plain(pipe: Any) -> torch.Tensor:
    return draw(pipe, PROMPTS)


@pytest.fixture(scope="module")
def everything(pipe: Any) -> Any:
    return guarded_at(pipe, 0.0)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b)


def check_reads_what_is_screened(
    pipeline: Any, model: Any, screener: Screener, guard: Mapping[str, Any], **call: Any
) -> None:
    """From the bank's noises a guard of a pipeline reads what a detector of the bundle measures.

    Args:
        pipeline: Of diffusers, with the bundle's sampler.
        model: What the bundle is of.
        screener: Of the bundle, of two noises.
        guard: Of guards.
        call: Of requests: the bundle's guidance, and the like.
    """
    bank = torch.from_numpy(screener.bundle.noise_bank())
    height, width = (pipeline.vae_scale_factor * side for side in model.latent_shape[1:])
    detector = Detector(screener, uncalibrated="score")
    for steps in (1, 2):
        with Guard(pipeline, steps=steps, **guard) as watching:
            pipeline(
                prompt=PROMPTS[:1] * 2, latents=model.packed(bank), output_type="latent",
                height=height, width=width,
                num_inference_steps=len(screener.timesteps), **call,
            )  # fmt: skip
        [wanted] = detector.screen(PROMPTS[:1], steps=steps)
        found = [each.score for each in watching.decisions]
        assert found == pytest.approx(list(wanted.scores), rel=1e-4)

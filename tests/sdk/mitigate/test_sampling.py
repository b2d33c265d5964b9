"""The sampler draws what diffusers draws, and what a plan changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mitigate_support import QUICK

from mnemoscope import ExportError, InputError, NumericsError, embedded
from mnemoscope.drawing.generate import generate
from mnemoscope.mitigate import Painter, Sampling
from mnemoscope.mitigate.sampling import sample
from mnemoscope_export import magnitudes

pytestmark = pytest.mark.slow


def test_it_draws_bit_for_bit_what_diffusers_draws() -> None:
    prompt = embedded.read_prompts("held_out")[0].prompt
    seeds = (3, 2**40)
    sampling = Sampling(steps=6)
    own = Painter.load()
    task = own.task([prompt] * 2, seeds, sampling)
    pictures = own.pictures(sample(task.plan(), sampling).latents)
    for mine, theirs in zip(pictures, generate(prompt, seeds=seeds, steps=6), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


@pytest.mark.numeric
def test_magnitudes_on_the_way_are_the_reference(painter: Painter) -> None:
    task = painter.task(["a cat", "a cat"], [0, 1], QUICK)
    drawn = sample(task.plan(), QUICK)
    expected = magnitudes(painter.model, ["a cat"], task.noises, steps=4, inference_steps=4)[0]
    torch.testing.assert_close(drawn.magnitudes, expected, rtol=1e-4, atol=1e-5)
    assert drawn.updates.shape == (2, 4)


@pytest.mark.numeric
def test_a_schedule_is_asked_at_every_step_for_every_sample(painter: Painter) -> None:
    task = painter.task(["a cat", "a cat"], [0, 0], QUICK)
    asked: list[tuple[int, int]] = []

    def schedule(t: int, found: torch.Tensor) -> torch.Tensor:
        asked.append((t, len(found)))
        return torch.tensor([7.5, 0.0])

    drawn = sample(replace(task.plan(), schedule=schedule), QUICK)
    assert asked == [(t, i + 1) for i, t in enumerate(task.timesteps().tolist())]
    usual = sample(task.plan(), QUICK).latents
    torch.testing.assert_close(drawn.latents[0], usual[0])
    none = sample(task.plan(), replace(QUICK, guidance=0.0)).latents
    torch.testing.assert_close(drawn.latents[1], none[1])
    assert (none - usual).abs().max() > 1e-3


def test_a_limit_sees_every_update(painter: Painter) -> None:
    task = painter.task(["a cat"], [0], QUICK)
    still = sample(replace(task.plan(), limit=lambda _, update: 0 * update), QUICK)
    torch.testing.assert_close(still.latents, task.noises)


def test_nan_is_no_picture(painter: Painter) -> None:
    task = painter.task(["a cat"], [0], QUICK)
    with pytest.raises(NumericsError, match="NaN or infinite"):
        sample(replace(task.plan(), latents=task.noises * float("nan")), QUICK)


def test_what_cannot_be_drawn_is_refused(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one seed for each"):
        painter.task(["a cat"], [0, 1])
    with pytest.raises(InputError, match="between 0 and"):
        painter.task(["a cat"], [-1])
    with pytest.raises(InputError, match="1 to 999 steps"):
        Sampling(steps=0)
    with pytest.raises(ExportError, match=r"model_index\.json"):
        Painter.load(str(tmp_path))

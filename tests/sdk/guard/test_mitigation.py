"""Wen et al.'s optimisation, on a magnitude that one can see through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from guard_support import BENIGN as PROMPTS
from guard_support import STEPS, pipe

from mnemoscope import CalibrationError, InputError, NumericsError
from mnemoscope.guard import EmbeddingOptimization, Flagged, StepMitigation, StepwiseOptimization

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
BENIGN = np.linspace(0, 4, 101)


def flagged(embeds: torch.Tensor, scale: float = 1.0) -> Flagged:
    """The magnitude is the distance of the embedding from zero."""
    return Flagged(
        prompts=(None,) * len(embeds),
        embeds=embeds,
        magnitude=lambda each: scale * each.flatten(1).norm(dim=1),
        benign=BENIGN,
        threshold=4.0,
    )


def test_every_image_stops_at_its_target() -> None:
    embeds = torch.ones(3, 5, 4) * torch.tensor([0.1, 1.0, 1.05])[:, None, None]
    embeds[:, 0] = 0.05  # the start token
    options = EmbeddingOptimization(iterations=100, quantile=0.5)
    found = options(flagged(embeds))
    norms = found.flatten(1).norm(dim=1)
    assert torch.equal(found[0], embeds[0])  # benign already
    assert torch.equal(found[:, 0], embeds[:, 0])
    assert (norms <= 2).all()
    assert (norms[1:] > 1.5).all()  # each stopped as soon as it was there
    assert not torch.equal(found[1], embeds[1])


def test_as_far_as_it_gets() -> None:
    embeds = torch.ones(1, 5, 4)
    passes = []
    problem = flagged(embeds)
    counted = Flagged(
        problem.prompts,
        problem.embeds,
        lambda each: passes.append(1) or problem.magnitude(each),  # type: ignore[func-returns-value]
        problem.benign,
        problem.threshold,
    )
    found = EmbeddingOptimization(iterations=3)(counted)
    assert len(passes) == 3
    assert torch.allclose(found[:, 1:], torch.tensor(1 - 3 * 0.05), atol=1e-4)  # Adam's steps


def test_nan() -> None:
    with pytest.raises(NumericsError, match="magnitude or its gradient"):
        EmbeddingOptimization()(flagged(torch.ones(1, 5, 4), scale=float("nan")))


def distance(embeds: torch.Tensor) -> torch.Tensor:
    return embeds.flatten(1).norm(dim=1)


def test_steps_have_targets_of_their_own() -> None:
    stepwise = StepwiseOptimization({900.0: 3.0, 800.0: 1.5}, iterations=100)
    assert isinstance(stepwise, StepMitigation)
    assert not isinstance(EmbeddingOptimization(), StepMitigation)
    assert stepwise.until == 800
    embeds = torch.ones(2, 5, 4) * torch.tensor([0.1, 1.0])[:, None, None]
    embeds[:, 0] = 0.05
    now = distance(embeds)
    for timestep, target in stepwise.targets.items():
        found = stepwise.steer(timestep, embeds, now, distance)
        assert found is not None
        assert torch.equal(found[0], embeds[0])  # low enough as it is
        assert torch.equal(found[:, 0], embeds[:, 0])
        assert 0.8 * target < distance(found)[1] <= target
    assert stepwise.steer(900.0, embeds, torch.tensor([0.1, 2.9]), distance) is None
    same = stepwise(flagged(embeds))
    assert same is embeds


def test_other_timesteps_than_were_learnt() -> None:
    stepwise = StepwiseOptimization({900.0: 3.0})
    with pytest.raises(CalibrationError, match=r"at timestep 950 was not learnt.*Learn again"):
        stepwise.steer(950.0, torch.ones(1, 5, 4), torch.ones(1), distance)


def test_learning_is_measuring_benign_prompts(pipe: Any) -> None:
    found = StepwiseOptimization.learn(
        pipe, PROMPTS, steps=2, batch=5, num_inference_steps=STEPS, quantile=0.75
    )
    pipe.scheduler.set_timesteps(STEPS)
    assert list(found.targets) == pipe.scheduler.timesteps[:2].tolist()
    low = StepwiseOptimization.learn(
        pipe, PROMPTS, steps=2, batch=12, num_inference_steps=STEPS, quantile=0.25
    )
    assert all(0 < low.targets[t] < found.targets[t] for t in found.targets)
    for nothing in ({"benign": []}, {"benign": PROMPTS, "quantile": 1.0}):
        with pytest.raises(InputError, match="share, between 0 and 1"):
            StepwiseOptimization.learn(pipe, steps=2, **nothing)

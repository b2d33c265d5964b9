"""A mitigation that changes embeddings on the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from guard_support import PROMPTS, STEPS, draw, one, pipe, same

from mnemoscope import InputError
from mnemoscope.guard import Flagged, Guard, StepwiseOptimization

pytestmark = pytest.mark.slow

__all__ = ["one", "pipe"]


@pytest.mark.parametrize("inference_mode", [False, True])
def test_mitigate_on_the_way(pipe: Any, one: Any, inference_mode: bool) -> None:
    calibration, which = one
    bare = draw(pipe, PROMPTS)
    looked = 3
    stepwise = StepwiseOptimization.learn(pipe, PROMPTS, steps=looked, num_inference_steps=STEPS)
    stepwise = replace(stepwise, iterations=40)
    with (
        Guard(pipe, calibration=calibration, policy="mitigate", mitigation=stepwise) as guard,
        torch.inference_mode(inference_mode),
    ):
        images = draw(pipe, PROMPTS)
    after = guard.decisions[which]
    first = next(iter(stepwise.targets.values()))
    assert (after.action, after.attempt, after.memorized) == ("mitigate", 1, False)
    assert after.score <= first * 1.001
    kept = [i for i in range(3) if i != which]
    assert same(images[kept], bare[kept])
    assert not same(images[which], bare[which])
    assert all(each.grad is None for each in pipe.unet.parameters())


def test_embeddings_go_on_from_step_to_step(pipe: Any, one: Any) -> None:
    calibration, which = one
    seen: list[tuple[float, torch.Tensor, float, float]] = []

    class Once:
        """Halves what is told at the first two steps."""

        until = 500.0

        def __call__(self, flagged: Flagged) -> torch.Tensor:
            return 0.5 * flagged.embeds

        def steer(self, t: float, embeds: Any, magnitudes: Any, magnitude: Any) -> Any:
            with torch.no_grad():
                again = magnitude(embeds)
            seen.append((t, embeds.clone(), float(magnitudes), float(again)))
            return 0.5 * embeds if len(seen) < 3 else None

    with Guard(pipe, calibration=calibration, policy="mitigate", mitigation=Once()) as guard:
        draw(pipe, PROMPTS)
    pipe.scheduler.set_timesteps(STEPS)
    asked = [t for t in pipe.scheduler.timesteps.tolist() if t >= 500]
    assert [t for t, *_ in seen] == asked
    assert len(asked) < STEPS
    for before, after in pairwise(seen):
        torch.testing.assert_close(after[1], 0.5 * before[1])
    for _, _, told, again in seen:  # the closure is of this very step
        assert again == pytest.approx(told, rel=1e-3)
    assert guard.decisions[which].attempt == 1


def test_nonsense_on_the_way(pipe: Any, one: Any) -> None:
    calibration, _ = one

    class Nonsense(StepwiseOptimization):
        def steer(self, *_: Any) -> Any:
            return torch.zeros(3, 2)

    with (
        Guard(pipe, calibration=calibration, policy="mitigate", mitigation=Nonsense({0.0: 1.0})),
        pytest.raises(InputError, match="The mitigation returned"),
    ):
        draw(pipe, PROMPTS)

"""Strategies that go by gradient: embedding and noise."""

from __future__ import annotations

import pytest
import torch
from mitigate_support import QUICK

from mnemoscope import InputError, NumericsError
from mnemoscope.drawing.gradient_descent import Descent, descend
from mnemoscope.mitigate import Embedding, Noise, Painter, Task
from mnemoscope_export import magnitude_of, unconditional

pytestmark = [pytest.mark.numeric, pytest.mark.slow]


@pytest.fixture
def task(painter: Painter) -> Task:
    return painter.task(["a cat", "a dog"], [0, 1], QUICK)


def first(task: Task, embeds: tuple[torch.Tensor, ...], x: torch.Tensor) -> torch.Tensor:
    t = int(task.timesteps()[0])
    with torch.no_grad():
        return magnitude_of(task.model, embeds, x, t, unconditional(task.model, x, t))


def test_every_sample_stops_at_its_target() -> None:
    start = torch.tensor([[4.0], [1.0], [0.1]])
    found = descend(lambda x: x.abs().sum(1), start, Descent(0.5, 0.1, 100))
    assert found.value[0] == pytest.approx(0.5, abs=0.11)
    assert found.value[1] == pytest.approx(0.5, abs=0.11)
    assert found.value[2] == pytest.approx(0.1)  # was below it already
    # the slowest takes about 35 iterations, the last none
    assert 10 < found.iterations < 20


def test_samples_do_not_depend_on_their_company(task: Task, painter: Painter) -> None:
    strategy = Embedding(0.05, iterations=3)
    both = strategy.plan(task).embeds[0]
    alone = strategy.plan(painter.task(["a dog"], [1], QUICK)).embeds[0]
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)


def test_embedding_lowers_the_magnitude_and_leaves_the_start_token(task: Task) -> None:
    before = task.plan()
    at = first(task, before.embeds, task.noises)
    plan = Embedding(float(at.min()) / 2).plan(task)
    assert (first(task, plan.embeds, plan.latents) < at).all()
    assert torch.equal(plan.embeds[0][:, 0], before.embeds[0][:, 0])
    assert (plan.embeds[0][:, 1:] != before.embeds[0][:, 1:]).any(2).all()
    assert torch.equal(plan.latents, task.noises)
    assert plan.passes > 1


def test_a_met_target_changes_nothing(task: Task) -> None:
    before = task.plan()
    target = float(first(task, before.embeds, task.noises).max()) * 1.01
    assert torch.equal(Embedding(target).plan(task).embeds[0], before.embeds[0])
    assert torch.equal(Noise(target).plan(task).latents, task.noises)


def test_noise_lowers_the_magnitude_and_keeps_prompt_and_length(task: Task) -> None:
    before = task.plan()
    at = first(task, before.embeds, task.noises)
    plan = Noise(float(at.min()) / 2).plan(task)
    assert (first(task, plan.embeds, plan.latents) < at).all()
    assert torch.equal(plan.embeds[0], before.embeds[0])
    length = task.noises.flatten(1).norm(dim=1)
    torch.testing.assert_close(plan.latents.flatten(1).norm(dim=1), length)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_that_cannot_be_met(task: Task, target: float) -> None:
    for strategy in (Embedding(target), Noise(target)):
        with pytest.raises(InputError, match="cannot be met"):
            strategy.plan(task)


def test_options_that_descend_nowhere(task: Task) -> None:
    with pytest.raises(InputError, match="learning rate"):
        Embedding(1, rate=0).plan(task)
    with pytest.raises(InputError, match="at least one iteration"):
        Noise(1, iterations=0).plan(task)


def test_a_gradient_that_is_nan() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return x.sum(1).sqrt() * 0 + 1  # 0 * inf

    with pytest.raises(NumericsError, match="gradient became NaN"):
        descend(loss, torch.zeros(1, 2), Descent(0.5, 0.1, 3))

"""Words that a magnitude comes from, left out."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from mitigate_support import QUICK

from mnemoscope import InputError
from mnemoscope.mitigate import Chain, LeaveOut, Painter, Stepwise, Task
from mnemoscope.mitigate.sampling import sample

pytestmark = pytest.mark.slow

PROMPT = "a dog sitting on mat"


@pytest.fixture
def task(painter: Painter) -> Task:
    return painter.task([PROMPT, "a cat", PROMPT], [0, 1, 2], QUICK)


@torch.no_grad()
def measured(task: Task, prompt: str) -> float:
    """The mean magnitude on the noises of the first prompt, by the model alone."""
    x, t = task.noises[[0, 2]] * task.model.sampler().init_noise_sigma, int(task.timesteps()[0])
    eps = task.model.predict_in_unit(x, t, task.model.embed([prompt] * 2))
    empty = task.model.predict_in_unit(x, t, task.model.embed([""] * 2))
    return float((eps - empty).flatten(1).norm(dim=1).mean())


def test_the_word_without_which_the_magnitude_is_lowest(task: Task) -> None:
    words = PROMPT.split()
    shorter = [" ".join(each) for each in combinations(words, len(words) - 1)]
    plan = LeaveOut(0.0, most=1).plan(task)
    assert plan.prompts is not None
    assert plan.prompts[0] == plan.prompts[2] == min(shorter, key=lambda p: measured(task, p))
    assert plan.prompts[1] in ("a", "cat")
    torch.testing.assert_close(plan.embeds, task.model.embed(plan.prompts))
    assert plan.passes == pytest.approx((2 * (2 + 5) + (2 + 2)) / 3)


def test_no_more_than_are_needed(task: Task) -> None:
    untouched = LeaveOut(1e9).plan(task)
    assert untouched.prompts == tuple(task.prompts)
    one = LeaveOut(0.0, most=1).plan(task).prompts
    assert one is not None
    enough = measured(task, one[0]) * 1.001
    found = LeaveOut(enough, most=3).plan(task).prompts
    assert found is not None
    assert found[0] == one[0]


def test_a_word_stays(task: Task) -> None:
    found = LeaveOut(0.0, most=9).plan(task).prompts
    assert found is not None
    assert [len(prompt.split()) for prompt in found] == [1, 1, 1]


def test_before_another_strategy(task: Task) -> None:
    """What is left is what the other starts from."""
    alone = LeaveOut(0.0, most=1)
    plan = Chain((alone, Stepwise((1e9,), QUICK.steps))).plan(task)
    assert plan.prompts == alone.plan(task).prompts
    drawn, expected = (sample(each, QUICK) for each in (plan, alone.plan(task)))
    torch.testing.assert_close(drawn.latents, expected.latents)


def test_nothing_left_out_is_refused() -> None:
    with pytest.raises(InputError, match="changes nothing"):
        LeaveOut(0.5, most=0)

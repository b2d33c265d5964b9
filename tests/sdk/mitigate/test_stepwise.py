"""Descent on the embedding at every early step."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from mitigate_support import LOADED, MEMORIZED, QUICK

from mnemoscope import InputError, embedded
from mnemoscope.mitigate import Chain, Embedding, Guidance, Painter, Stepwise, Task
from mnemoscope.mitigate.sampling import draw_benign, sample

pytestmark = pytest.mark.slow


@pytest.fixture
def task(painter: Painter) -> Task:
    return painter.task(["a cat", "a dog sitting on a mat"], [0, 1], QUICK)


@pytest.mark.numeric
def test_targets_are_what_benign_prompts_have(painter: Painter) -> None:
    prompts = ["a tree", "a house", "a boat"]
    found = Stepwise.learn(painter, prompts, QUICK, quantile=0.75, until=500)
    drawn = sample(painter.task(prompts, [0, 1, 2], QUICK).plan(), QUICK)
    timesteps = painter.task(prompts[:1], [0], QUICK).timesteps()
    early = drawn.magnitudes[:, timesteps > 500].double()
    assert found.targets == pytest.approx(early.quantile(0.75, dim=0).tolist())
    assert 1 <= len(found.targets) < found.steps == QUICK.steps


@pytest.mark.numeric
def test_benign_prompts_have_noises_of_their_own(painter: Painter) -> None:
    drawn = draw_benign(painter, ["a tree"] * 21, QUICK)
    pictures = drawn.latents.flatten(1).double()
    assert len(pictures) == 21
    apart = torch.cdist(pictures, pictures) / pictures.norm(dim=1).mean()
    assert apart[~torch.eye(21, dtype=torch.bool)].min() > 0.1  # not by rounding: by their noise


@pytest.mark.numeric
def test_magnitudes_come_down_at_every_step_looked_at(task: Task) -> None:
    before = sample(task.plan(), QUICK).magnitudes
    targets = (before[:, :2].min(0).values / 2).tolist()
    strategy = Stepwise(tuple(targets), QUICK.steps, rate=0.02, iterations=100)
    drawn = sample(strategy.plan(task), QUICK)
    assert (drawn.magnitudes[:, :2] <= torch.tensor(targets) * 1.001).all()
    assert (before[:, :2] > torch.tensor(targets)).all()
    assert drawn.passes > 0


@pytest.mark.numeric
def test_what_is_low_enough_is_left_alone(task: Task) -> None:
    plain = sample(task.plan(), QUICK)
    first = plain.magnitudes[:, 0]
    assert first[0] != first[1]
    between = float(first.mean())
    drawn = sample(Stepwise((between,), QUICK.steps, iterations=2).plan(task), QUICK)
    low, high = int(first.argmin()), int(first.argmax())
    # a batch's other rows may change the order of sums: at every step a few units in the last place
    # of two predictions, which guidance multiplies
    units = 4 * torch.finfo(torch.float32).eps * QUICK.steps * (2 * task.scale - 1)
    rounding = units * float(plain.latents.abs().max())
    torch.testing.assert_close(drawn.latents[low], plain.latents[low], rtol=0, atol=rounding)
    assert not torch.allclose(drawn.latents[high], plain.latents[high], rtol=0, atol=5 * rounding)
    untouched = sample(Stepwise((1e6,) * 4, QUICK.steps).plan(task), QUICK)
    assert torch.equal(untouched.latents, plain.latents)
    assert untouched.passes == 0


def test_the_start_token_stays_and_embeddings_go_on_from_step_to_step(task: Task) -> None:
    plan = Stepwise((1e-3,) * 2, QUICK.steps, iterations=1).plan(task)
    assert plan.steer is not None
    eps = torch.zeros_like(task.noises)
    seen = [plan.embeds]
    for step in range(2):
        steered = plan.steer(step, task.noises, seen[-1], eps, torch.ones(2))
        assert steered is not None
        assert steered.passes == 3  # one forward, one backward
        seen.append(steered.embeds)
    for before, after in pairwise(seen):
        assert torch.equal(before[0][:, 0], after[0][:, 0])
        assert not torch.equal(before[0][:, 1:], after[0][:, 1:])
    assert plan.steer(2, task.noises, seen[-1], eps, torch.ones(2)) is None


def test_in_a_chain(task: Task) -> None:
    strategy = Stepwise((0.01,), QUICK.steps)
    chain = Chain((Embedding(0.01, iterations=1), strategy, Guidance(until=500)))
    plan = chain.plan(task)
    assert plan.steer is not None
    assert plan.schedule is not None
    assert not torch.equal(plan.embeds[0], task.plan().embeds[0])
    with pytest.raises(InputError, match="'stepwise' changes the steer too"):
        Chain((strategy, strategy)).plan(task)


def test_what_does_not_fit(task: Task, painter: Painter) -> None:
    with pytest.raises(InputError, match="drawn in 3 steps, not in 4"):
        Stepwise((1.0,), 3).plan(task)
    with pytest.raises(InputError, match="two of them"):
        Stepwise.learn(painter, ["a tree"], QUICK)
    for options in ({"quantile": 1.0}, {"until": 0}):
        with pytest.raises(InputError, match="between 0 and 1"):
            Stepwise.learn(painter, ["a tree", "a house"], QUICK, **options)  # type: ignore[arg-type]


def test_a_memorised_picture_does_not_come_out() -> None:
    real = LOADED["load"]()
    benign = [row.prompt for row in embedded.read_prompts("calibration")[:3]]
    strategy = Stepwise.learn(real, benign)
    task = real.task([MEMORIZED], [0])
    before, after = (sample(each, task.sampling) for each in (task.plan(), strategy.plan(task)))
    describe = LOADED["load_descriptor"]().describe
    known = describe(embedded.memorized_pictures())
    likeness = [
        float((known @ describe(real.pictures(each.latents))[0]).max()) for each in (before, after)
    ]
    assert likeness[0] > 0.9 > likeness[1]

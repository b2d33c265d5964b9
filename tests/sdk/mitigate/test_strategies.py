"""Strategies that need no gradient, and chains."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import named_in_table, run_code
from mitigate_support import QUICK
from pipelines import build_pipeline, build_sd3, build_xl, small_vae
from t5_tokenizers import t5_tokenizer

from mnemoscope import InputError, embedded
from mnemoscope.mitigate import (
    STRATEGIES,
    Attention,
    Chain,
    Clamp,
    Embedding,
    Guidance,
    Kit,
    Mitigator,
    Noise,
    Padding,
    Painter,
    RandomWords,
    Rephrase,
    Task,
    random_prompts,
)
from mnemoscope.mitigate.guidance import _past_minimum
from mnemoscope.mitigate.sampling import sample
from mnemoscope_runtime.families import FAMILIES

pytestmark = pytest.mark.slow


@pytest.fixture
def task(painter: Painter) -> Task:
    return painter.task(["a cat", "a dog sitting on a mat"], [0, 1], QUICK)


def test_static_guidance(task: Task) -> None:
    schedule = Guidance(before=-2, until=500).plan(task).schedule
    assert schedule is not None
    scales = [schedule(t, torch.ones(1, 2)).tolist() for t in (501, 500, 1)]
    assert scales == [[-2, -2], [7.5, 7.5], [7.5, 7.5]]


def test_dynamic_guidance_waits_for_the_first_local_minimum(task: Task) -> None:
    found = torch.tensor([[3.0, 1.0], [2.0, 2.0], [2.5, 3.0], [1.0, 4.0]])
    assert [_past_minimum(found[:k]).tolist() for k in (1, 2, 3, 4)] == [
        [False, False],
        [False, False],
        [True, False],  # 3, 2, 2.5; the other one only rises
        [True, False],
    ]
    schedule = Guidance().plan(task).schedule
    assert schedule is not None
    assert schedule(700, found[:3]).tolist() == [7.5, 0]


def test_no_such_transition_point() -> None:
    with pytest.raises(InputError, match="between 1 and 1000"):
        Guidance(until=1001)


@pytest.mark.parametrize(("end", "position"), [(False, 0), (True, -1)])
def test_padding_is_the_empty_prompts(task: Task, end: bool, position: int) -> None:
    before = task.plan().embeds[0]
    (empty,) = task.model.embed_empty()
    after = Padding(end=end).plan(task).embeds[0]
    for row, prompt in enumerate(task.prompts):
        ids = task.model.tokenizer(prompt).input_ids
        first = len(ids) + position
        assert torch.equal(after[row, :first], before[row, :first])
        assert torch.equal(after[row, first:], empty[0, first:])
        assert not torch.equal(before[row, first:], empty[0, first:])
    zeros = Padding(fill="zero", end=end).plan(task).embeds[0]
    assert zeros[0, -1].abs().max() == 0


def test_no_other_filling() -> None:
    with pytest.raises(InputError, match="'empty' or 'zero'"):
        Padding(fill="ones")  # type: ignore[arg-type]


OTHERS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "sdxl": (build_xl, ("padding",)),
    "sd3": (lambda: build_sd3(t5_tokenizer()), ("padding", "attention")),
}


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_take_all_but_what_is_for_one(family: str, tmp_path: Path) -> None:
    folder, (build, refused) = tmp_path / "tiny", OTHERS[family]
    pipeline = build()
    if family == "sd3":
        pipeline.register_modules(vae=small_vae(shift_factor=0.06))
    pipeline.save_pretrained(folder)
    large = Painter.load(str(folder))
    kit = Kit(large, target=0.01, benign=["a tree", "a house"], sampling=QUICK)
    task = large.task(["a cat"], [0], QUICK)
    assert len(large.pictures(sample(task.plan(), QUICK).latents)) == 1
    for name in STRATEGIES:
        if name not in refused:
            assert sample(kit.make(name).plan(task), QUICK).latents.shape == task.noises.shape
        else:
            name_of = re.escape(FAMILIES[family].name)
            with pytest.raises(InputError, match=rf"of the family {name_of}.*Choose another"):
                kit.make(name).plan(task)


@pytest.mark.numeric
def test_attention_of_scale_one_without_mask_is_the_models_own(task: Task) -> None:
    plan = Attention(1.0, mask=False).plan(task)
    drawn, usual = (sample(each, QUICK) for each in (plan, task.plan()))
    torch.testing.assert_close(drawn.latents, usual.latents, rtol=1e-3, atol=1e-4)


@pytest.mark.numeric
def test_attention_that_is_hidden_is_not_read(task: Task) -> None:
    plan = Attention(1.0).plan(task)
    drawn = sample(plan, QUICK).magnitudes
    embeds = plan.embeds[0].clone()
    embeds[:, -3:] += 5  # padding of both prompts
    other = sample(replace(plan, embeds=(embeds,)), QUICK).magnitudes
    torch.testing.assert_close(drawn, other)
    seen = sample(replace(task.plan(), embeds=(embeds,)), QUICK).magnitudes
    assert (seen - drawn).abs().max() > 1e-3


@pytest.mark.numeric
def test_the_start_token_weighs_more_for_the_conditional_rows_only(task: Task) -> None:
    plan = Attention(3.0, mask=False).plan(task)
    x = torch.cat([task.noises, task.noises])
    embeds = (torch.cat([plan.embeds[0], plan.embeds[0]]),)
    with torch.no_grad():
        found = plan.model.predict(x, 500, embeds)
        usual = task.model.predict(x, 500, embeds)
    torch.testing.assert_close(found[:2], usual[:2], rtol=1e-3, atol=1e-4)
    assert (found[2:] - usual[2:]).abs().max() > 1e-3


def test_attention_leaves_the_model_as_it_was(task: Task) -> None:
    before = {name: type(each) for name, each in task.model.unet.attn_processors.items()}
    sample(Attention(2.0).plan(task), QUICK)
    assert {n: type(p) for n, p in task.model.unet.attn_processors.items()} == before
    with pytest.raises(InputError, match="more than 0"):
        Attention(0)


def test_clamp_holds_updates_to_benign_lengths(task: Task, painter: Painter) -> None:
    clamp = Clamp.learn(painter, ["a tree", "a house", "a boat"], QUICK)
    assert len(clamp.mean) == len(clamp.std) == QUICK.steps
    wide = sample(replace(clamp, width=1000.0).plan(task), QUICK)
    torch.testing.assert_close(wide.latents, sample(task.plan(), QUICK).latents)
    still = sample(replace(clamp, width=-1e6).plan(task), QUICK)
    torch.testing.assert_close(still.latents, task.noises)
    limit = clamp.plan(task).limit
    assert limit is not None
    held = limit(0, 100 * task.noises).flatten(1).norm(dim=1)
    torch.testing.assert_close(held, torch.full((2,), clamp.mean[0]))
    assert replace(clamp, steps=1).plan(task).limit(1, task.noises) is task.noises  # type: ignore[misc]


def test_clamps_that_do_not_fit(task: Task, painter: Painter) -> None:
    with pytest.raises(InputError, match="two of them"):
        Clamp.learn(painter, ["a tree"], QUICK)
    with pytest.raises(InputError, match="drawn in 3 steps, not in 4"):
        Clamp((1.0,) * 3, (1.0,) * 3).plan(task)


@pytest.mark.parametrize("kind", ["tokens", "words", "numbers"])
def test_random_words_keep_the_prompts(task: Task, kind: str) -> None:
    strategy = RandomWords(kind, 3)  # type: ignore[arg-type]
    plan, again = strategy.plan(task), strategy.plan(task)
    assert plan.prompts is not None
    assert plan.prompts == again.prompts
    for mine, prompt in zip(plan.prompts, task.prompts, strict=True):
        left = mine.split()
        for word in prompt.split():
            left.remove(word)
        assert len(left) >= 3
        if kind == "numbers":
            assert all(0 <= int(word) < 100_000 for word in left)
        if kind == "words":
            assert all(word.isalpha() and len(word) > 2 for word in left)
    torch.testing.assert_close(plan.embeds, task.model.embed(plan.prompts))
    assert strategy.name == f"random-{kind}"


def test_nothing_random_is_refused() -> None:
    with pytest.raises(InputError, match="change nothing"):
        RandomWords("words", 0)
    with pytest.raises(InputError, match="tokens, words or numbers"):
        RandomWords("emoji")  # type: ignore[arg-type]


def test_rephrasing_is_the_users(task: Task) -> None:
    plan = Rephrase(str.upper).plan(task)
    assert plan.prompts == ("A CAT", "A DOG SITTING ON A MAT")
    for nothing in ("  ", None):
        with pytest.raises(InputError, match="which is no prompt"):
            Rephrase(lambda _, said=nothing: said).plan(task)  # type: ignore[misc]


def test_a_chain_does_both(task: Task) -> None:
    chain = Chain((Embedding(0.01, iterations=2), Guidance(until=500)))
    assert chain.name == "embedding-guidance"
    plan, alone = chain.plan(task), Embedding(0.01, iterations=2).plan(task)
    torch.testing.assert_close(plan.embeds, alone.embeds)
    assert plan.schedule is not None
    assert plan.passes == alone.passes
    moved = Chain((Noise(0.01, iterations=2), Embedding(0.01, iterations=2))).plan(task)
    assert not torch.equal(moved.latents, task.noises)
    assert not torch.equal(moved.embeds[0], alone.embeds[0])  # planned on the other noise


def test_a_chain_of_rivals_is_refused(task: Task) -> None:
    with pytest.raises(InputError, match="'padding' changes the embeds too"):
        Chain((Embedding(0.01, iterations=2), Padding())).plan(task)
    with pytest.raises(InputError, match="changes the schedule too"):
        Chain((Guidance(), Guidance())).plan(task)


def test_a_kit_makes_each(painter: Painter) -> None:
    kit = Kit(painter, target=0.5, benign=["a tree", "a house"], sampling=QUICK)
    assert [kit.make(name).name for name in STRATEGIES] == list(STRATEGIES)
    assert kit.make("clamp") is kit.make("clamp")
    with pytest.raises(InputError, match=r"no strategy 'magic'\. Choose one of: embedding"):
        kit.make("magic")


def test_without_a_calibration_targets_are_those_of_benign_prompts(painter: Painter) -> None:
    benign = ["a tree", "a house", "a boat"]
    found = Kit(painter, benign=benign, sampling=QUICK).make("embedding")
    drawn = sample(painter.task(benign, [0, 1, 2], QUICK).plan(), QUICK).magnitudes[:, 0]
    assert isinstance(found, Embedding)
    assert found.target == pytest.approx(float(drawn.double().quantile(0.25)), rel=1e-4)


def test_a_kit_that_is_told_nothing_makes_each(painter: Painter) -> None:
    """From prompts of random words, the same every time."""
    kit = Kit(painter, sampling=QUICK)
    assert [kit.make(name).name for name in STRATEGIES] == list(STRATEGIES)
    assert kit.usual == random_prompts(painter.model) != random_prompts(painter.model, seed=1)
    assert len(set(kit.usual)) == 20
    words = {word for prompt in kit.usual for word in prompt.split()}
    known = painter.model.tokenizer.get_vocab()
    assert all(f"{word}</w>" in known for word in words)
    assert {3, 10} <= {len(prompt.split()) for prompt in kit.usual} <= set(range(3, 11))


def test_velocity_models_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("v") / "tiny"
    build_pipeline("v_prediction").save_pretrained(folder)
    velocity = Painter.load(str(folder))
    kit = Kit(velocity, target=0.01, benign=["a tree", "a house"], sampling=QUICK)
    task = velocity.task([embedded.read_prompts("memorized")[0].prompt], [0], QUICK)
    for name in STRATEGIES:
        assert sample(kit.make(name).plan(task), QUICK).latents.shape == task.noises.shape


# the table


def test_every_strategy_is_told_of_in_the_docs() -> None:
    assert set(STRATEGIES) | {"Rephrase(callback)"} <= named_in_table("mitigation.md")


def test_one_of_your_own(mitigator: Mitigator, task: Task) -> None:
    """The example of docs/mitigation.md."""
    halfway = run_code("mitigation.md", "class Halfway")["Halfway"]()
    [empty], [prompts] = task.model.embed_empty(), task.plan().embeds
    [found] = halfway.plan(task).embeds
    assert torch.allclose(found - empty, 0.5 * (prompts - empty), atol=1e-6)
    drawn = mitigator.draw(["a cat"], [0], halfway)
    assert [each.strategy for each in drawn] == ["halfway"]

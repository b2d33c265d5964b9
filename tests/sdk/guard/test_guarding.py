"""What a guard does with a pipeline: nothing, unless an image is flagged."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guard_support import (
    PROMPTS,
    STEPS,
    between,
    counted,
    draw,
    everything,
    guarded_at,
    one,
    pipe,
    plain,
    same,
    scores,
    seeded,
)

from mnemoscope import CalibrationError, InputError
from mnemoscope.calibration import digest
from mnemoscope.guard import (
    Decision,
    EmbeddingOptimization,
    Flagged,
    Guard,
    MemorizationBlocked,
    MemorizationWarning,
)

pytestmark = pytest.mark.slow

__all__ = ["everything", "one", "pipe", "plain"]


@pytest.mark.parametrize("policy", ["warn", "block", "mitigate", lambda _: ["pass"] * 3])
def test_nothing_flagged_changes_nothing(pipe: Any, plain: torch.Tensor, policy: Any) -> None:
    before, kind = dict(vars(pipe)), type(pipe)
    with Guard(pipe, calibration=guarded_at(pipe, 1e6), policy=policy) as guard:
        assert same(draw(pipe, PROMPTS), plain)
    assert [each.action for each in guard.decisions] == ["pass"] * 3
    assert type(pipe) is kind
    assert {**vars(pipe), "scheduler": 0} == {**before, "scheduler": 0}
    assert not pipe.unet._forward_hooks
    assert not pipe.unet._forward_pre_hooks


def test_the_global_generator_is_left_where_it_would_be(pipe: Any) -> None:
    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        return draw(pipe, PROMPTS, generator=None), torch.rand(1)

    expected = drawn()
    with Guard(pipe):
        found = drawn()
    assert all(map(same, found, expected))


def test_warn(pipe: Any, plain: torch.Tensor, one: Any) -> None:
    calibration, which = one
    with (
        Guard(pipe, calibration=calibration) as guard,
        pytest.warns(MemorizationWarning, match=f"Image {which} is about to") as caught,
    ):
        assert same(draw(pipe, PROMPTS), plain)
    assert len([each for each in caught if each.category is MemorizationWarning]) == 1
    assert [each.memorized for each in guard.decisions] == [i == which for i in range(3)]
    assert all(0 < each.seconds < 60 for each in guard.decisions)


def test_a_score_at_the_threshold_is_not_above_it(pipe: Any, plain: torch.Tensor) -> None:
    highest = max(scores(pipe, PROMPTS))
    with Guard(pipe, calibration=guarded_at(pipe, highest), policy="block") as guard:
        assert same(draw(pipe, PROMPTS), plain)
    assert max(each.score for each in guard.decisions) == guard.decisions[0].threshold == highest


@pytest.mark.parametrize(("kind", "steps"), [("pt", 1), ("np", 2), ("pil", 1), ("latent", 2)])
def test_block_some(pipe: Any, kind: str, steps: int) -> None:
    found = scores(pipe, PROMPTS, steps=steps)
    which = int(np.argmax(found))
    calibration = guarded_at(pipe, between(found, 2), steps=steps)
    bare = pipe(PROMPTS, generator=seeded(3), num_inference_steps=STEPS, output_type=kind).images
    with Guard(pipe, calibration=calibration, policy="block", steps=steps) as guard:
        images, _ = pipe(
            PROMPTS,
            generator=seeded(3),
            num_inference_steps=STEPS,
            output_type=kind,
            return_dict=False,
        )
    assert [each.action for each in guard.decisions].index("block") == which
    for i, (image, expected) in enumerate(zip(images, bare, strict=True)):
        if i == which:
            assert not np.asarray(image).any()
        else:
            assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_what_is_blocked_cannot_be_watched_either(pipe: Any, one: Any) -> None:
    """A callback on every step sees latents that know nothing of the blocked prompt."""
    calibration, which = one
    seen: list[torch.Tensor] = []

    def keep(*args: Any) -> dict[str, torch.Tensor]:
        told: dict[str, torch.Tensor] = args[-1]
        seen.append(told["latents"][which].clone())
        return told

    others = list(PROMPTS)
    others[which] = ""  # no prompt
    draw(pipe, others, callback_on_step_end=keep)
    unprompted, seen = seen, []
    with Guard(pipe, calibration=calibration, policy="block"):
        draw(pipe, PROMPTS, callback_on_step_end=keep)
    for found, expected in zip(seen, unprompted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_blocked_image_is_not_drawn_by_way_of_the_other_half(pipe: Any, one: Any) -> None:
    """A callback may not tell the UNet a blocked prompt where it should be told none."""
    calibration, which = one
    seen: list[torch.Tensor] = []

    def write(*args: Any) -> dict[str, torch.Tensor]:
        told: dict[str, torch.Tensor] = args[-1]
        embeds = told["prompt_embeds"].clone()
        embeds[: len(PROMPTS)] = embeds[len(PROMPTS) :]
        seen.append(told["latents"][which])
        return {"prompt_embeds": embeds}

    def write_in_place(*args: Any) -> dict[str, torch.Tensor]:
        args[-1]["prompt_embeds"][: len(PROMPTS)] = write(*args)["prompt_embeds"][: len(PROMPTS)]
        return {}

    call = {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    with Guard(pipe, calibration=calibration, policy="block"):
        for callback in (write, write_in_place):
            seen.clear()
            with pytest.raises(InputError, match="embeddings of this request were changed after"):
                draw(pipe, PROMPTS, callback_on_step_end=callback, **call)
            assert len(seen) == 1  # the step before, which was drawn without the prompt
    with Guard(pipe, calibration=guarded_at(pipe, 1e6), policy="block"):  # nothing is blocked
        draw(pipe, PROMPTS, callback_on_step_end=write, **call)


def test_block_all_stops_after_the_first_step(pipe: Any, everything: Any) -> None:
    with (
        counted() as calls,
        Guard(pipe, calibration=everything, policy="block") as guard,
        pytest.raises(MemorizationBlocked, match=r"all 3 images were flagged") as blocked,
    ):
        draw(pipe, PROMPTS)
    assert len(calls) == 1
    assert blocked.value.decisions == guard.decisions
    assert blocked.value.exit_code == 1


@pytest.mark.parametrize(
    ("policy", "ends"), [("warn", 1), ("block", 1), ("mitigate", 2), (lambda _: ["?"], 1)]
)
def test_models_are_offloaded_wherever_a_request_ends(
    pipe: Any, everything: Any, monkeypatch: pytest.MonkeyPatch, policy: Any, ends: int
) -> None:
    """A pipeline does so at its end, which a request that is stopped, or begins anew, misses."""
    ended: list[None] = []
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: ended.append(None))
    with (
        Guard(pipe, calibration=everything, policy=policy, mitigation=same_embeds),
        warnings.catch_warnings(action="ignore", category=MemorizationWarning),
        suppress(MemorizationBlocked, InputError),
    ):
        draw(pipe, PROMPTS)
    assert len(ended) == ends


def same_embeds(flagged: Flagged) -> torch.Tensor:
    return flagged.embeds


def test_images_of_a_prompt_are_decided_one_by_one(pipe: Any) -> None:
    with Guard(pipe) as guard:
        bare = draw(pipe, PROMPTS[:2], num_images_per_prompt=2)
    found = [each.score for each in guard.decisions]
    which = int(np.argmax(found))
    with Guard(pipe, calibration=guarded_at(pipe, between(found, 3)), policy="block") as guard:
        images = draw(pipe, PROMPTS[:2], num_images_per_prompt=2)
    assert [each.action == "block" for each in guard.decisions] == [i == which for i in range(4)]
    assert [not bool(each.any()) for each in images] == [i == which for i in range(4)]
    kept = [i for i in range(4) if i != which]
    assert same(images[kept], bare[kept])


@pytest.mark.parametrize(("steps", "inference_mode"), [(1, True), (2, False)])
def test_mitigate(pipe: Any, steps: int, inference_mode: bool) -> None:
    found = scores(pipe, PROMPTS, steps=steps)
    which = int(np.argmax(found))
    calibration = guarded_at(pipe, between(found, 2), steps=steps)
    bare = draw(pipe, PROMPTS)
    with (
        Guard(
            pipe,
            calibration=calibration,
            policy="mitigate",
            steps=steps,
            mitigation=EmbeddingOptimization(iterations=40),
        ) as guard,
        torch.inference_mode(inference_mode),
    ):
        images = draw(pipe, PROMPTS)
    after = guard.decisions[which]
    assert (after.action, after.attempt, after.memorized) == ("mitigate", 1, False)
    assert after.score < found[which]
    kept = [i for i in range(3) if i != which]
    assert same(images[kept], bare[kept])
    assert not same(images[which], bare[which])
    assert all(each.grad is None for each in pipe.unet.parameters())


def test_a_mitigation_of_ones_own(pipe: Any, one: Any) -> None:
    """The empty prompt's embedding: the image is then the unprompted one of the same noise."""
    calibration, which = one
    empty, _ = pipe.encode_prompt("", "cpu", 1, False)
    seen: list[Flagged] = []

    def forget(flagged: Flagged) -> torch.Tensor:
        seen.append(flagged)
        return empty.expand_as(flagged.embeds)

    others = list(PROMPTS)
    others[which] = ""
    expected = draw(pipe, others)
    with Guard(pipe, calibration=calibration, policy="mitigate", mitigation=forget) as guard:
        images = draw(pipe, PROMPTS)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
    [flagged] = seen
    assert flagged.prompts == (PROMPTS[which],)
    assert flagged.embeds.shape == (1, 77, 32)
    assert guard.decisions[which].score < 1e-3


def test_what_mitigation_does_not_help_is_blocked(pipe: Any, one: Any, plain: torch.Tensor) -> None:
    calibration, which = one
    with Guard(
        pipe, calibration=calibration, policy="mitigate", mitigation=lambda flagged: flagged.embeds
    ) as guard:
        images = draw(pipe, PROMPTS)
    assert guard.decisions[which].action == "block"
    assert guard.decisions[which].attempt == 1
    assert not images[which].any()
    kept = [i for i in range(3) if i != which]
    assert same(images[kept], plain[kept])


def test_a_mitigation_that_returns_nonsense(pipe: Any, one: Any) -> None:
    calibration, _ = one
    with (
        Guard(
            pipe,
            calibration=calibration,
            policy="mitigate",
            mitigation=lambda flagged: flagged.embeds * float("nan"),
        ),
        pytest.raises(InputError, match="The mitigation returned"),
    ):
        draw(pipe, PROMPTS)


def test_a_function_as_policy(pipe: Any, plain: torch.Tensor, one: Any) -> None:
    calibration, which = one
    told: list[tuple[Decision, ...]] = []

    def policy(decisions: tuple[Decision, ...]) -> list[Any]:
        told.append(decisions)
        return ["block", "pass", "pass"]

    with Guard(pipe, calibration=calibration, policy=policy) as guard:
        images = draw(pipe, PROMPTS)
    assert [each.memorized for each in told[0]] == [i == which for i in range(3)]
    assert [each.policy for each in guard.decisions] == ["callback"] * 3
    assert not images[0].any()
    assert same(images[1:], plain[1:])
    for wrong in (["stop"] * 3, ["pass", "stop", "pass"], ["pass"] * 2, "pass", None):
        with (
            Guard(pipe, policy=lambda _, wrong=wrong: wrong),
            pytest.raises(InputError, match=r"The policy returned .* returns a list with one of"),
        ):
            draw(pipe, PROMPTS)
    with (
        Guard(pipe, policy=lambda _: ["mitigate"] * 3),
        pytest.raises(CalibrationError, match="takes a calibration"),
    ):
        draw(pipe, PROMPTS)


def test_messages_claim_no_more_than_is_known(pipe: Any, everything: Any) -> None:
    """Nothing is flagged without a calibration; and 0 is a threshold."""
    with (
        Guard(pipe, policy=lambda _: ["warn"] * 3),
        pytest.warns(MemorizationWarning, match=r"The policy warns.*threshold none.*not flagged"),
    ):
        draw(pipe, PROMPTS)
    with (
        Guard(pipe, policy=lambda _: ["block"] * 3),
        pytest.raises(MemorizationBlocked, match=r"were blocked by the policy .*threshold none"),
    ):
        draw(pipe, PROMPTS)
    with (
        Guard(pipe, calibration=everything),
        pytest.warns(MemorizationWarning, match=r"is about to .*threshold 0\. It"),
    ):
        draw(pipe, PROMPTS)


def test_the_record(pipe: Any, one: Any, tmp_path: Path) -> None:
    calibration, which = one
    file = tmp_path / "decisions.jsonl"
    with Guard(pipe, calibration=calibration, policy="mitigate", record=file):
        draw(pipe, PROMPTS)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["index"], row["attempt"]) for row in rows] == [(0, 0), (1, 0), (2, 0), (which, 1)]
    assert [row["prompt_id"] for row in rows[:3]] == list(map(digest, PROMPTS))
    assert rows[which]["action"] == "mitigate"
    assert not any(prompt in file.read_text() for prompt in PROMPTS)
    with Guard(pipe, record=file, keep_prompts=True):
        draw(pipe, PROMPTS)
    last = json.loads(file.read_text().splitlines()[-1])
    assert last["prompt"] == PROMPTS[2]
    assert last["memorized"] is None
    with Guard(pipe, record=tmp_path), pytest.raises(InputError, match="cannot be written"):
        draw(pipe, PROMPTS)


def test_detach_and_errors_restore(pipe: Any, plain: torch.Tensor) -> None:
    kind = type(pipe)

    def fail(*_: Any) -> dict[str, Any]:
        raise RuntimeError("theirs")

    with pytest.raises(RuntimeError, match="theirs"), Guard(pipe):
        draw(pipe, PROMPTS, callback_on_step_end=fail)
    assert type(pipe) is kind

    guard = Guard(pipe)
    assert type(pipe).__name__ == kind.__name__
    assert isinstance(pipe, kind)
    with pytest.raises(RuntimeError, match="theirs"):
        draw(pipe, PROMPTS, callback_on_step_end=fail)
    assert not pipe.unet._forward_hooks
    with pytest.raises(InputError, match="guarded already"):
        Guard(pipe)
    guard.detach()
    guard.detach()
    assert type(pipe) is kind
    assert same(draw(pipe, PROMPTS), plain)


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_prompt_is_compared_with_nothing(pipe: Any, everything: Any, empty: str) -> None:
    """It has no verdict, not even under a threshold that flags all, and is drawn as ever."""
    bare = draw(pipe, [empty, "a cat"])
    with Guard(pipe, calibration=everything, policy="block") as guard:
        images = draw(pipe, [empty, "a cat"])
        first, second = guard.decisions
    assert (first.compared, first.memorized, first.p_value, first.action) == (
        False,
        None,
        None,
        "pass",
    )
    assert (second.compared, second.memorized, second.action) == (True, True, "block")
    assert same(images[0], bare[0])

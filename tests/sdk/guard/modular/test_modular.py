"""A guard of a modular pipeline reads what its guider combines, and decides as for any other."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    StableDiffusionXLAutoBlocks,
    TangentialClassifierFreeGuidance,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance
from guard_support import BENIGN, STEPS, between, counted, draw, guarded_at, scores, seeded
from modular_support import PROMPTS, SIZE, modular

from mnemoscope import InputError, NumericsError
from mnemoscope.guard import (
    EmbeddingOptimization,
    Guard,
    MemorizationBlocked,
    MemorizationWarning,
    StepwiseOptimization,
    calibrate_guard,
)

pytestmark = pytest.mark.slow

GUIDERS = [
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    AdaptiveProjectedGuidance,
    AdaptiveProjectedMixGuidance,
    TangentialClassifierFreeGuidance,
]


@pytest.mark.parametrize("steps", [1, 3])
def test_scores_are_those_of_the_classic_pipeline(pipe: Any, classic: Any, steps: int) -> None:
    told: dict[str, Any] = {**SIZE, "steps": steps}
    expected = scores(classic, PROMPTS, guidance_scale=7.5, **told)
    assert scores(pipe, PROMPTS, **told) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("policy", ["block", "mitigate"])  # the others in test_guarding.py
def test_nothing_flagged_changes_nothing(pipe: Any, plain: torch.Tensor, policy: Any) -> None:
    kind, guider = type(pipe), pipe.guider
    options = set(vars(guider))
    with Guard(pipe, calibration=guarded_at(pipe, 1e6, **SIZE), policy=policy) as guard:
        assert torch.equal(draw(pipe, PROMPTS, **SIZE), plain)
    assert [each.action for each in guard.decisions] == ["pass"] * 3
    assert type(pipe) is kind
    assert pipe.guider is guider
    assert set(vars(guider)) == options
    assert not pipe.unet._forward_hooks
    assert torch.equal(draw(pipe, PROMPTS, **SIZE), plain)


def test_warn(pipe: Any, plain: torch.Tensor, one: Any) -> None:
    calibration, which = one
    with (
        Guard(pipe, calibration=calibration),
        pytest.warns(MemorizationWarning, match=f"Image {which} is about to"),
    ):
        assert torch.equal(draw(pipe, PROMPTS, **SIZE), plain)


@pytest.mark.parametrize("kind", ["pt", "pil", "latent"])
def test_block_some(pipe: Any, one: Any, kind: str) -> None:
    """Neither pictures nor latents of what is blocked come back, however they are asked for."""
    calibration, which = one

    def drawn(**output: Any) -> Any:
        told = {"generator": seeded(3), "num_inference_steps": STEPS, "output_type": kind}
        return pipe(prompt=PROMPTS, **told, **SIZE, **output)

    bare = drawn()
    with Guard(pipe, calibration=calibration, policy="block") as guard:
        state = drawn()
        some = drawn(output=["images", "latents"])
        alone = [drawn(output=name) for name in ("images", "latents")]
        embeds = drawn(output="prompt_embeds")
    assert [each.action for each in guard.decisions].index("block") == which
    assert torch.equal(embeds, bare.prompt_embeds)
    for images, latents in (
        (state.images, state.latents),
        (some["images"], some["latents"]),
        alone,
    ):
        for i in range(3):
            for found, expected in (
                (images[i], bare.images[i]),
                (latents[i], bare.latents[i]),
            ):
                if i == which:
                    assert not np.asarray(found).any()
                else:
                    assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("kind", GUIDERS)
def test_guiders(pipe: Any, found: tuple[float, ...], kind: Any) -> None:
    """Whatever it makes of the two predictions: they are read, and the prompt's can be left out."""
    pipe.update_components(guider=kind())
    assert scores(pipe, PROMPTS, **SIZE) == pytest.approx(found, rel=1e-4)
    bare = draw(pipe, PROMPTS, **SIZE)
    step = pipe.scheduler.step
    seen: list[torch.Tensor] = []

    def keep(prediction: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(prediction)
        return step(prediction, *args, **kwargs)

    pipe.scheduler.step = keep
    try:
        with Guard(pipe, policy=lambda _: ["block", "pass", "pass"]):
            images = draw(pipe, PROMPTS, **SIZE)
            one, seen = seen, []
            draw(pipe, ["another prompt", *PROMPTS[1:]], **SIZE)
        other, seen = seen, []
        draw(pipe, ["another prompt", *PROMPTS[1:]], **SIZE)
    finally:
        del pipe.scheduler.step
    assert not images[0].any()
    assert torch.equal(images[1:], bare[1:])
    for a, b in zip(one, other, strict=True):  # nothing of either prompt is in it
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[-1][0], other[-1][0], rtol=1e-2, atol=1e-2)


def test_block_all_stops_after_the_first_step_and_is_no_error_of_diffusers(
    pipe: Any, plain: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("diffusers").addHandler(caplog.handler)
    before = {k: v for k, v in vars(pipe.guider).items() if k.startswith("_")}
    calibration = guarded_at(pipe, 0.0, **SIZE)
    with (
        counted() as calls,
        Guard(pipe, calibration=calibration, policy="block") as guard,
        pytest.raises(MemorizationBlocked, match=r"all 3 images were flagged") as blocked,
    ):
        draw(pipe, PROMPTS, **SIZE)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert len(calls) == 1
    assert blocked.value.decisions == guard.decisions
    assert "Error in block" not in caplog.text
    assert {k: v for k, v in vars(pipe.guider).items() if k.startswith("_")} == before
    assert torch.equal(draw(pipe, PROMPTS, **SIZE), plain)


@pytest.mark.parametrize("steps", [2])
def test_mitigate(pipe: Any, plain: torch.Tensor, steps: int) -> None:
    found = scores(pipe, PROMPTS, steps=steps, **SIZE)
    which = int(np.argmax(found))
    with Guard(
        pipe,
        calibration=guarded_at(pipe, between(found, 2), steps=steps, **SIZE),
        policy="mitigate",
        mitigation=EmbeddingOptimization(iterations=40),
    ) as guard:
        images = draw(pipe, PROMPTS, **SIZE)
    after = guard.decisions[which]
    assert after.attempt == 1
    assert after.score < found[which]
    kept = [i for i in range(3) if i != which]
    assert torch.equal(images[kept], plain[kept])
    assert not torch.equal(images[which], plain[which])


def test_mitigate_on_the_way(pipe: Any, plain: torch.Tensor, one: Any) -> None:
    calibration, which = one
    stepwise = StepwiseOptimization.learn(pipe, PROMPTS, steps=2, num_inference_steps=STEPS, **SIZE)
    stepwise = replace(stepwise, iterations=40)
    with Guard(pipe, calibration=calibration, policy="mitigate", mitigation=stepwise) as guard:
        images = draw(pipe, PROMPTS, **SIZE)
    assert guard.decisions[which].attempt == 1
    assert guard.decisions[which].score <= next(iter(stepwise.targets.values())) * 1.001
    kept = [i for i in range(3) if i != which]
    assert torch.equal(images[kept], plain[kept])
    assert not torch.equal(images[which], plain[which])


def test_images_of_a_prompt_are_decided_one_by_one(pipe: Any) -> None:
    with Guard(pipe) as guard:
        draw(pipe, PROMPTS[:2], num_images_per_prompt=2, **SIZE)
    assert len({each.score for each in guard.decisions}) == 4
    names = [each.prompt_id for each in guard.decisions]
    assert names == [names[0]] * 2 + [names[2]] * 2


def test_a_state_is_continued(pipe: Any, found: tuple[float, ...]) -> None:
    state = pipe(prompt=PROMPTS, num_inference_steps=STEPS, output_type="latent", **SIZE)
    state.set("latents", None)
    state.set("timesteps", None)
    with Guard(pipe, keep_prompts=True) as guard:
        pipe(state=state, generator=seeded(3))
    assert [each.prompt for each in guard.decisions] == PROMPTS
    assert [each.score for each in guard.decisions] == pytest.approx(found, rel=1e-4)


def test_negative_prompts(pipe: Any, found: tuple[float, ...]) -> None:
    told: dict[str, Any] = {"negative_prompt": ["dark"] * 3, **SIZE}
    with Guard(pipe), pytest.raises(InputError, match="negative prompt"):
        draw(pipe, PROMPTS, **told)
    assert scores(pipe, PROMPTS, extra_pass=True, **told) == pytest.approx(found, rel=1e-4)
    calibration = calibrate_guard(
        pipe, BENIGN, fpr=0.3, num_inference_steps=STEPS, negative_prompt="dark", **SIZE
    )
    with Guard(pipe, calibration=calibration, negative_prompt="dark", policy="block") as guard:
        with contextlib.suppress(MemorizationBlocked):
            draw(pipe, PROMPTS, **told)
        assert len(guard.decisions) == 3


def test_without_guidance(pipe: Any, found: tuple[float, ...]) -> None:
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=1.0))
    with Guard(pipe), pytest.raises(InputError, match="no unconditional branch"):
        draw(pipe, PROMPTS, **SIZE)
    assert scores(pipe, PROMPTS, extra_pass=True, **SIZE) == pytest.approx(found, rel=1e-4)


def test_nan_is_no_verdict(pipe: Any) -> None:
    latents = torch.randn(3, 4, 8, 8)
    latents[1, 0, 0, 0] = float("nan")
    with Guard(pipe) as guard, pytest.raises(NumericsError, match="image 1 is NaN"):
        draw(pipe, PROMPTS, latents=latents, **SIZE)
    assert guard.decisions == ()


def test_a_workflow_of_its_own(classic: Any, found: tuple[float, ...]) -> None:
    blocks = StableDiffusionXLAutoBlocks().get_workflow("text2image")
    assert scores(modular(classic, blocks), PROMPTS, **SIZE) == pytest.approx(found, rel=1e-4)

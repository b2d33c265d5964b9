"""What a request's own callbacks may do, and what they may not, beside diffusers on its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback
from guard_support import STEPS, draw, guarded_at, pipe, seeded
from PIL import Image

from mnemoscope import InputError
from mnemoscope.guard import Guard, calibrate_guard
from mnemoscope.guard.callbacks import overseen
from mnemoscope.guard.refusing import outside

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
PROMPTS = ["a cat", "a dog"]
Told = dict[str, torch.Tensor]


def returned(_: Any, __: int, ___: Any, told: Told) -> Told:
    return {"latents": told["latents"] * 2}


def at_the_end(_: Any, step: int, __: Any, told: Told) -> Told:
    return {"latents": told["latents"] * 2} if step == STEPS - 1 else told


def in_place(_: Any, __: int, ___: Any, told: Told) -> Told:
    told["latents"] *= 2
    return {}


def in_another_type(_: Any, __: int, ___: Any, told: Told) -> Told:
    return {"latents": told["latents"].double()}


def by_another_sampler(own: Any, _: int, __: Any, told: Told) -> Told:
    own.scheduler = DDIMScheduler.from_config(own.scheduler.config)
    own.scheduler.set_timesteps(STEPS)
    return told


def by_a_method(own: Any, _: int, __: Any, told: Told) -> Told:
    step = own.scheduler.step
    own.scheduler.step = lambda *args, **options: [2 * each for each in step(*args, **options)]
    return told


@pytest.mark.parametrize(
    ("callback", "what"),
    [
        (returned, "latents after step 0"),
        (at_the_end, f"latents after step {STEPS - 1}"),
        (in_place, "latents after step 0"),
        (in_another_type, "latents after step 0"),
        (by_another_sampler, "scheduler after step 0"),
        (by_a_method, "scheduler after step 0"),
    ],
)
def test_what_is_drawn_cannot_be_exchanged(
    pipe: Any, callback: Callable[..., Told], what: str
) -> None:
    scheduler = pipe.scheduler
    try:
        with Guard(pipe), pytest.raises(InputError, match=f"callback .* changed its {what}"):
            draw(pipe, PROMPTS, callback_on_step_end=callback)
    finally:
        pipe.scheduler = scheduler
        vars(scheduler).pop("step", None)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers' own, of the old callbacks
def test_nor_by_the_callbacks_of_old(pipe: Any) -> None:
    def double(_: int, __: Any, latents: torch.Tensor) -> None:
        latents *= 2

    bare = draw(pipe, PROMPTS)
    assert not torch.equal(draw(pipe, PROMPTS, callback=double, callback_steps=1), bare)
    with Guard(pipe):
        with pytest.raises(InputError, match="changed its latents after step 0"):
            draw(pipe, PROMPTS, callback=double, callback_steps=1)
        looked = draw(pipe, PROMPTS, callback=lambda *_: None, callback_steps=1)
    assert torch.equal(looked, bare)


def test_nor_while_it_is_calibrated(pipe: Any) -> None:
    call = {"fpr": 0.5, "delta": 0.5, "num_inference_steps": STEPS, "steps": 2}
    with pytest.raises(InputError, match="changed its latents"):
        calibrate_guard(pipe, ["a", "b", "c"], callback_on_step_end=returned, **call)


def test_a_callback_may_look_and_drop_guidance(pipe: Any) -> None:
    """As diffusers' own one does, whose tensors are not told by the request."""
    asked: list[set[str]] = []

    def look(_: Any, __: int, ___: Any, told: Told) -> Told:
        asked.append(set(told))
        return {name: value.clone() for name, value in told.items()}

    cut = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    for told in (
        {"callback_on_step_end": look},
        {
            "callback_on_step_end": look,
            "callback_on_step_end_tensor_inputs": ["negative_prompt_embeds"],
        },
        {"callback_on_step_end": cut},
        {"callback_on_step_end": MultiPipelineCallbacks([cut])},
    ):
        bare = draw(pipe, PROMPTS[:1], **told)
        with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
            assert torch.equal(draw(pipe, PROMPTS[:1], **told), bare)
    assert [sorted(each) for each in asked[STEPS : 2 * STEPS]] == [["latents"]] * STEPS
    assert [sorted(each) for each in asked[-STEPS:]] == [["negative_prompt_embeds"]] * STEPS


def test_a_masked_picture_is_blended_by_the_pipeline_alone(pipe: Any) -> None:
    painting = StableDiffusionInpaintPipeline(**pipe.components)
    painting.set_progress_bar_config(disable=True)
    mask = Image.new("L", (16, 16), 255)
    mask.paste(0, (0, 0, 8, 16))

    def paint(**told: Any) -> torch.Tensor:
        found: torch.Tensor = painting(
            prompt="a cat", image=Image.new("RGB", (16, 16), "red"), mask_image=mask,
            strength=1.0, num_inference_steps=STEPS, generator=seeded(1), output_type="pt", **told,
        ).images  # fmt: skip
        return found

    def uncover(_: Any, __: int, ___: Any, told: Told) -> Told:
        return {"mask": torch.zeros_like(told["mask"])}

    def unasked(_: Any, __: int, ___: Any, ____: Told) -> Told:
        return {"mask": torch.zeros(2, 1, 8, 8)}

    bare = paint()
    asking = {"callback_on_step_end_tensor_inputs": ["mask"]}
    assert not torch.equal(paint(callback_on_step_end=uncover, **asking), bare)
    with Guard(painting):
        assert torch.equal(paint(callback_on_step_end=lambda *told: told[-1]), bare)
        for callback, told in ((uncover, asking), (unasked, {})):
            with pytest.raises(InputError, match="changed its mask after step 0"):
                paint(callback_on_step_end=callback, **told)


@pytest.mark.parametrize(
    ("name", "change", "refused"),
    [
        ("add_time_ids", lambda ids: ids[-1:], False),  # guidance was dropped
        ("add_time_ids", lambda ids: ids[:1], True),
        ("add_time_ids", lambda ids: ids[:0], True),
        ("add_time_ids", lambda ids: ids[0, 0], True),
        ("add_time_ids", lambda _: None, True),
        ("latents", lambda latents: latents[-1:], True),  # a picture would be missing
        ("latents", lambda latents: latents.clone(), False),
        ("prompt_embeds", lambda embeds: embeds * 2, False),  # compared where the network is told
        ("mask", lambda _: torch.zeros(1), False),  # there was none
    ],
)
def test_what_the_pipeline_goes_on_with(
    name: str, change: Callable[[torch.Tensor], object], refused: bool
) -> None:
    pipe = SimpleNamespace(scheduler=SimpleNamespace(), _callback_tensor_inputs=[])
    has = {
        "add_time_ids": torch.tensor([[1.0, 2.0]] * 3 + [[3.0, torch.nan]]),
        "latents": torch.ones(2, 4, 8, 8),
        "prompt_embeds": torch.ones(2, 3, 4),
        "mask": None,
    }
    told = {
        "callback_on_step_end": lambda *_: {name: change(has[name])},
        "callback_on_step_end_tensor_inputs": [name],
    }
    with pytest.raises(InputError, match=name) if refused else nullcontext(), outside():
        overseen(pipe, told)["callback_on_step_end"](pipe, 0, 0, has)

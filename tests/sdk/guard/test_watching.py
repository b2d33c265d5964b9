"""What a guard measures is the metric, whatever samples, predicts and wraps the UNet."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from guard_support import STEPS, draw, guarded_at, pipe, scores, seeded
from one_block import one_block
from PIL import Image
from pipelines import build_pipeline, build_xl

from mnemoscope import CalibrationError, InputError, NumericsError
from mnemoscope.guard import Guard
from mnemoscope_export import StableDiffusion, magnitude, magnitudes

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
PROMPTS = ["a cat", "a dog"]


def model_of(pipe: Any) -> StableDiffusion:
    return StableDiffusion("test", pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.scheduler)


def noise(count: int, shape: tuple[int, ...] = (4, 8, 8)) -> torch.Tensor:
    return torch.cat([torch.randn(1, *shape, generator=each) for each in seeded(count)])


@pytest.mark.numeric
@pytest.mark.parametrize(("prediction", "steps"), [("epsilon", 3), ("v_prediction", 1)])
def test_scores_are_the_references(prediction: str, steps: int) -> None:
    pipe = build_pipeline(prediction)
    latents = noise(2)
    found = scores(pipe, PROMPTS, latents=latents, steps=steps, guidance_scale=7.5)
    expected = [
        magnitudes(model_of(pipe), [p], latents[i : i + 1], steps=steps, inference_steps=STEPS)
        .mean()
        .item()
        for i, p in enumerate(PROMPTS)
    ]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("kind", "prediction"),
    [(EulerDiscreteScheduler, "epsilon"), (DPMSolverMultistepScheduler, "v_prediction")],
)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers' own
def test_eps_units_with_other_samplers(kind: Any, prediction: str) -> None:
    pipe = build_pipeline(prediction)
    model = model_of(pipe)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    seen: list[tuple[Any, ...]] = []
    handle = pipe.unet.register_forward_hook(lambda _, args, output: seen.append((args, output)))
    found = scores(pipe, PROMPTS)
    handle.remove()
    (sample, timestep), (output,) = seen[0]
    t = int(timestep)
    uncond, cond = (model.in_unit(part, sample[:2], t) for part in output.chunk(2))
    assert found == pytest.approx(magnitude(cond, uncond).tolist(), rel=1e-3)


@pytest.mark.numeric
def test_every_image_of_a_prompt_has_a_score_of_its_own(pipe: Any) -> None:
    with Guard(pipe) as guard:
        draw(pipe, PROMPTS, num_images_per_prompt=3)
    names = [each.prompt_id for each in guard.decisions]
    assert names[:3] == names[:1] * 3
    assert names[3:] == names[3:4] * 3
    assert names[0] != names[3]
    assert [each.index for each in guard.decisions] == list(range(6))
    assert len({each.score for each in guard.decisions}) == 6
    singly = scores(pipe, ["a dog"], generator=seeded(1, first=4))
    assert guard.decisions[4].score == pytest.approx(singly[0], rel=1e-4)


def test_prompt_embeds(pipe: Any) -> None:
    embeds, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    call = {"generator": seeded(2), "num_inference_steps": STEPS, "output_type": "latent"}
    empty, _ = pipe.encode_prompt([""] * 2, "cpu", 1, False)
    with Guard(pipe) as guard:
        pipe(prompt_embeds=embeds, negative_prompt_embeds=empty, **call)
        found = guard.decisions
    assert [each.score for each in found] == pytest.approx(scores(pipe, PROMPTS), rel=1e-4)
    assert len({each.prompt_id for each in found}) == 2


def test_embeddings_cannot_hide_behind_themselves(pipe: Any) -> None:
    """The same embeddings on both sides would make every magnitude zero."""
    embeds, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    with Guard(pipe), pytest.raises(InputError, match="negative prompt"):
        pipe(prompt_embeds=embeds, negative_prompt_embeds=embeds, num_inference_steps=STEPS)


@pytest.mark.parametrize("in_place", [False, True])
def test_embeddings_that_change_between_steps_are_compared_again(pipe: Any, in_place: bool) -> None:
    """What passed at the first step, and in an earlier request, vouches for nothing later."""

    def swap(_: Any, __: int, ___: Any, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        embeds = told["prompt_embeds"] if in_place else told["prompt_embeds"].clone()
        embeds[:2] = embeds[2:]
        return {"prompt_embeds": embeds}

    call = {
        "callback_on_step_end": swap,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    with Guard(pipe, steps=2) as guard:
        draw(pipe, PROMPTS)
        with pytest.raises(InputError, match="negative prompt"):
            draw(pipe, PROMPTS, **call)
        assert guard.decisions == ()
        draw(pipe, PROMPTS)


def test_a_negative_prompt_is_refused_or_takes_a_pass_of_its_own(pipe: Any) -> None:
    with Guard(pipe) as guard, pytest.raises(InputError, match="extra_pass=True"):
        draw(pipe, PROMPTS, negative_prompt=["", "dark"])
    assert guard.decisions == ()
    found = scores(pipe, PROMPTS, negative_prompt=["dark"] * 2, extra_pass=True)
    assert found == pytest.approx(scores(pipe, PROMPTS), rel=1e-4)
    for extra_pass in (False, True):
        with (
            Guard(pipe, steps=2, extra_pass=extra_pass),
            pytest.raises(InputError, match=r"Past the.*2 steps.* would not help.*steps=1, extra"),
        ):
            draw(pipe, PROMPTS, negative_prompt=["dark"] * 2)


def test_without_guidance(pipe: Any) -> None:
    with Guard(pipe), pytest.raises(InputError, match="no unconditional branch"):
        draw(pipe, PROMPTS, guidance_scale=1.0)
    found = scores(pipe, PROMPTS, guidance_scale=1.0, extra_pass=True)
    assert found == pytest.approx(scores(pipe, PROMPTS), rel=1e-4)


def test_img2img_and_inpainting(pipe: Any) -> None:
    picture, mask = Image.new("RGB", (16, 16), "red"), Image.new("L", (16, 16), 255)
    parts = dict(pipe.components)
    for kind, told in (
        (StableDiffusionImg2ImgPipeline, {"image": picture, "strength": 0.5}),
        (StableDiffusionInpaintPipeline, {"image": picture, "mask_image": mask, "strength": 0.5}),
    ):
        other = kind(**parts, requires_safety_checker=False)
        plain = draw(other, PROMPTS, **told)
        with Guard(other) as guard:
            torch.testing.assert_close(draw(other, PROMPTS, **told), plain, rtol=0, atol=0)
        assert len(guard.decisions) == 2
        assert guard.decisions[0].timesteps < (600,)
        with (
            Guard(other, steps=3),
            pytest.raises(CalibrationError, match=r"made 2 steps, and"),
        ):
            draw(other, PROMPTS, **told)  # half of the steps are skipped


def test_stable_diffusion_xl() -> None:
    pipe = build_xl()
    plain = draw(pipe, PROMPTS, height=16, width=16)
    with Guard(pipe) as guard:
        found = draw(pipe, PROMPTS, height=16, width=16)
        torch.testing.assert_close(found, plain, rtol=0, atol=0)
        expected = [each.score for each in guard.decisions]
        assert expected[0] != expected[1]
        with pytest.raises(InputError, match="negative prompt"):
            draw(pipe, PROMPTS, negative_prompt=["dark"] * 2, height=16, width=16)
    told = {"negative_prompt": ["dark"] * 2, "height": 16, "width": 16}
    assert scores(pipe, PROMPTS, extra_pass=True, **told) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled(in_place: bool) -> None:
    pipe = build_pipeline("epsilon")
    pipe.unet = one_block().eval()
    expected, calibration = scores(pipe, PROMPTS), guarded_at(pipe, 1e6)
    original = pipe.unet
    if in_place:
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    plain = draw(pipe, PROMPTS)  # compiled before the guard comes
    compiled = pipe.unet._compiled_call_impl
    assert scores(pipe, PROMPTS) == pytest.approx(expected, rel=1e-4)
    with Guard(pipe, calibration=calibration):  # compiled or not, it is the same model
        draw(pipe, PROMPTS)
    assert pipe.unet._compiled_call_impl is compiled
    torch.testing.assert_close(draw(pipe, PROMPTS), plain, rtol=0, atol=0)
    assert not original._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    pipe = build_pipeline("epsilon")
    expected = scores(pipe, PROMPTS)
    half = copy.deepcopy(pipe)
    half.to(dtype)
    assert scores(half, PROMPTS) == pytest.approx(expected, rel=0.15)


def test_offloaded() -> None:
    pipe = build_pipeline("epsilon")
    plain, expected = draw(pipe, PROMPTS), scores(pipe, PROMPTS)
    calibration = guarded_at(pipe, 1e6)
    _, text_hook = cpu_offload_with_hook(pipe.text_encoder, "cpu")  # as for whole models
    cpu_offload(pipe.unet, execution_device="cpu")
    assert all(each.is_meta for each in pipe.unet.parameters())
    with Guard(pipe, calibration=calibration) as guard:
        for _ in range(2):
            torch.testing.assert_close(draw(pipe, PROMPTS), plain, rtol=0, atol=0)
            assert guard._identified.unchanged()  # nothing is hashed for every request
            assert [each.score for each in guard.decisions] == pytest.approx(expected)
        kept = pipe.unet.conv_in._hf_hook.weights_map["weight"]
        kept.mul_(2)
        with pytest.raises(CalibrationError, match="unet weights changed"):
            draw(pipe, PROMPTS)
    text_hook.remove()


def test_nan_is_no_verdict(pipe: Any) -> None:
    latents = noise(2)
    latents[1, 0, 0, 0] = float("nan")
    with Guard(pipe) as guard, pytest.raises(NumericsError, match="image 1 is NaN"):
        draw(pipe, PROMPTS, latents=latents)
    assert guard.decisions == ()

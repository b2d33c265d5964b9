"""In a real checkout of ComfyUI, with the embedded model in its layout: MNEMOSCOPE_COMFYUI=DIR.

The witness is diffusers' own pipeline under Mnemoscope's guard: same weights, noise and sigmas.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkout_support import (
    DOG,
    SHAPE,
    STEPS,
    TOWER,
    encoded,
    needs_checkout,
    noise_of,
    reporting,
    sample,
    seen,
)

from integrations.comfyui.decision import Blocked
from integrations.comfyui.guard import guarded
from integrations.comfyui.identity import Identity
from mnemoscope import Calibration, CalibrationError, InputError

pytestmark = needs_checkout


@pytest.mark.parametrize("steps", [1, 3])
def test_magnitudes_are_those_of_the_guard_of_a_diffusers_pipeline(
    pipe: Any, comfy: tuple[Any, Any], steps: int
) -> None:
    from diffusers import EulerDiscreteScheduler

    from mnemoscope.guard import Guard

    found = seen(comfy, [TOWER, DOG], reporting(comfy, steps=steps))
    other = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="linspace", steps_offset=0
    )
    other.set_timesteps(STEPS)
    sigma = float(other.sigmas[0])
    start = noise_of(1, 2) * (1 + sigma**2) ** 0.5 / float(other.init_noise_sigma)
    pipe.scheduler = other
    with Guard(pipe, steps=steps) as guard:
        pipe([TOWER, DOG], num_inference_steps=STEPS, latents=start, output_type="latent")
    wanted = [each.score for each in guard.decisions]
    assert [each.score for each in found.decisions] == pytest.approx(wanted, rel=2e-4)
    assert wanted[0] > 2 * wanted[1]


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("dpmpp_2m", "karras"), ("uni_pc", "simple"), ("euler_ancestral", "sgm_uniform")],
)
def test_the_first_step_is_the_same_whatever_samples(
    comfy: tuple[Any, Any], sampler: str, scheduler: str, calibration: Calibration
) -> None:
    guard = reporting(comfy, calibrations=(calibration,))
    wanted = seen(comfy, [TOWER], guard)
    found = seen(comfy, [TOWER], guard, sampler_name=sampler, scheduler=scheduler)
    assert found.score == pytest.approx(wanted.score, rel=1e-5)
    assert found.decisions[0].memorized is wanted.decisions[0].memorized is True


def test_what_is_not_flagged_is_drawn_to_the_bit(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="block", calibrations=(calibration,))
    positive, negative = encoded(clip, DOG), encoded(clip, "")
    plain = sample(model, noise_of(1), positive, negative)
    assert torch.equal(sample(guard.attach(model), noise_of(1), positive, negative), plain)
    assert guard.sampled(plain).clear


def test_block_raises_and_black_leaves_the_flagged_latents_empty(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    block = guarded(model, clip, mode="block", calibrations=(calibration,))
    with pytest.raises(Blocked, match="1 of 2 image"):
        seen(comfy, [TOWER, DOG], block)
    black = guarded(model, clip, mode="black", calibrations=(calibration,))
    positive, negative = encoded(clip, TOWER, DOG), encoded(clip, "")
    drawn = sample(black.attach(model), noise_of(1, 2), positive, negative)
    plain = sample(model, noise_of(1, 2), positive, negative)
    assert not drawn[0].any()
    assert torch.equal(drawn[1], plain[1])
    assert black.sampled(drawn).hidden == (0,)
    assert not sample(black.attach(model), noise_of(1), encoded(clip, TOWER), negative).any()


def test_a_lora_behind_the_guard_is_another_state(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="block", calibrations=(calibration,))
    patched = guard.attach(model).clone()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    value = torch.ones_like(model.model.state_dict()[name])
    patched.add_patches({name: ("diff", (value,))}, 0.01)
    with pytest.raises(CalibrationError, match=r"state is model patched \(1 weights"):
        sample(patched, noise_of(1), encoded(clip, DOG), encoded(clip, ""))


def _freeu(model: Any) -> Any:
    from comfy_extras.nodes_freelunch import FreeU_V2  # type: ignore[import-not-found]

    return FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0]


def _lcm(model: Any) -> Any:
    from comfy_extras.nodes_model_advanced import (  # type: ignore[import-not-found]
        ModelSamplingDiscrete,
    )

    return ModelSamplingDiscrete().patch(model, "lcm", False)[0]


def test_what_the_guard_cannot_tell_is_refused_by_name(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="black", calibrations=(calibration,))
    watched, dog, empty = guard.attach(model), encoded(clip, DOG), encoded(clip, "")
    with pytest.raises(InputError, match="FreeU"):
        sample(_freeu(watched), noise_of(1), dog, empty)
    with pytest.raises(InputError, match="LCM"):
        sample(_lcm(watched), noise_of(1), dog, empty)
    with pytest.raises(InputError, match=r"cfg 1\.0"):
        sample(watched, noise_of(1), dog, empty, cfg=1.0)
    with pytest.raises(InputError, match="2 parts"):
        sample(watched, noise_of(1), dog + encoded(clip, TOWER), empty)
    with pytest.raises(InputError, match="area"):
        sample(watched, noise_of(1), [[dog[0][0], {**dog[0][1], "area": (4, 4, 0, 0)}]], empty)
    with pytest.raises(InputError, match="not the guard's"):
        sample(watched, noise_of(1), dog, encoded(clip, "blurry"))
    with pytest.raises(InputError, match="noise mask"):
        sample(watched, noise_of(1), dog, empty, noise_mask=torch.ones(1, 8, 8))
    with pytest.raises(InputError, match="adds no noise"):
        sample(watched, torch.zeros(SHAPE), dog, empty, latent_image=noise_of(2))
    with pytest.raises(CalibrationError, match="sigmas is"):
        sample(watched, noise_of(1), dog, empty, denoise=0.5)


def test_extra_pass_has_the_baseline_computed_at_cfg_1(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    guard = guarded(*comfy, mode="report", calibrations=(calibration,), extra_pass=True)
    wanted = seen(comfy, [TOWER], guard)
    assert seen(comfy, [TOWER], guard, cfg=1.0).score == pytest.approx(wanted.score, rel=1e-6)


def test_weights_are_those_of_the_file_while_a_lora_is_in_them(comfy: tuple[Any, Any]) -> None:
    model, clip = comfy
    before = Identity.of(model, clip)
    patched = model.clone()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    value = torch.ones_like(model.model.state_dict()[name])
    patched.add_patches({name: ("diff", (value,))}, 0.01)
    told = encoded(clip, DOG), encoded(clip, "")
    with_it = sample(patched, noise_of(1), *told)
    now = Identity.of(patched, clip)
    assert now.model == before.model
    assert now.state.startswith("model patched (1 weights")
    assert Identity.of(model, clip) == before
    assert not torch.equal(sample(model, noise_of(1), *told), with_it)

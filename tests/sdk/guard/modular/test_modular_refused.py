"""What a guard of a modular pipeline refuses: guiders, requests, blocks, other settings."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from diffusers import (
    AutoGuidance,
    ClassifierFreeGuidance,
    ModularPipelineBlocks,
    PerturbedAttentionGuidance,
    SequentialPipelineBlocks,
    StableDiffusionXLAutoBlocks,
)
from diffusers.guiders import BaseGuidance, MagnitudeAwareGuidance
from guard_support import BENIGN, STEPS, draw, guarded_at
from modular_support import PROMPTS, SIZE, modular
from PIL import Image

from mnemoscope import CalibrationError, InputError
from mnemoscope.guard import Guard, calibrate_guard

pytestmark = pytest.mark.slow


def test_a_refused_request_is_no_error_of_diffusers_either(
    pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calibration = guarded_at(pipe, 1e6, **SIZE)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    with Guard(pipe, calibration=calibration):
        with pytest.raises(CalibrationError, match="timesteps is"):
            draw(pipe, PROMPTS, **SIZE | {"num_inference_steps": STEPS + 1})
        with pytest.raises(InputError, match="The negative prompt of this request"):
            draw(pipe, PROMPTS, negative_prompt="dark", **SIZE)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "Error in block" not in caplog.text
    assert not pipe.unet._forward_hooks


def test_calibrating_refuses_what_the_blocks_do_not_take(pipe: Any) -> None:
    with pytest.raises(InputError, match="Did you mean num_inference_steps"):
        calibrate_guard(pipe, BENIGN, fpr=0.3, num_inferense_steps=STEPS, **SIZE)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_calibrations_hold_for_their_settings(pipe: Any, classic: Any) -> None:
    told = {"fpr": 0.3, "num_inference_steps": STEPS, **SIZE}
    one, two = (calibrate_guard(pipe, BENIGN, steps=k, **told) for k in (1, 2))
    with Guard(pipe, calibration=one) as guard:
        draw(pipe, PROMPTS, **SIZE)
        assert guard.decisions[0].p_value is not None
        with pytest.raises(CalibrationError, match="timesteps is 801, calibrated was 751"):
            draw(pipe, PROMPTS, num_inference_steps=5, **SIZE)
        with pytest.raises(CalibrationError, match=r"options is .*original_size"):
            draw(pipe, PROMPTS, original_size=(8, 8), **SIZE)
        pipe.guider.guidance_scale = 3.0  # does not matter at the first step
        draw(pipe, PROMPTS, **SIZE)
    with (
        Guard(pipe, calibration=two),
        pytest.raises(CalibrationError, match=r"guidance_scale=3.0, .*calibrated was .*=7.5"),
    ):
        draw(pipe, PROMPTS, **SIZE)
    with pytest.raises(CalibrationError, match="calibrated was a StableDiffusionXLModularPipeline"):
        Guard(classic, calibration=one)


def test_guiders_that_are_refused(pipe: Any) -> None:
    class Own(ClassifierFreeGuidance):
        """Might do anything."""

    for guider, why in (
        (
            AutoGuidance(auto_guidance_layers=[0], dropout=0.1),
            "AutoGuidance: its unconditional prediction",
        ),
        (PerturbedAttentionGuidance(perturbed_guidance_layers=[0]), "a third prediction"),
        (MagnitudeAwareGuidance(), "MagnitudeAwareGuidance: it fails on"),
        (Own(), "Own: a guard does not know"),
    ):
        with Guard(pipe) as guard:
            pipe.update_components(guider=guider)
            with pytest.raises(InputError, match=why):
                draw(pipe, PROMPTS, **SIZE)
            assert guard.decisions == ()
        with pytest.raises(InputError, match=why):
            Guard(pipe)
        pipe.update_components(guider=ClassifierFreeGuidance())


def test_only_what_the_unet_answered_counts(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(guider: Any, sides: Any) -> Any:
        for side in sides:
            side.noise_pred = side.noise_pred.clone()
        return BaseGuidance.__call__(guider, sides)

    with Guard(pipe) as guard:
        monkeypatch.setattr(ClassifierFreeGuidance, "__call__", other)
        with pytest.raises(InputError, match="combines something that the UNet did not answer"):
            draw(pipe, PROMPTS, **SIZE)
        assert guard.decisions == ()
    monkeypatch.undo()
    pipe.guider.forward = lambda *_: None
    with pytest.raises(InputError, match="were replaced"):
        Guard(pipe)


def test_requests_that_are_refused(pipe: Any) -> None:
    with Guard(pipe):
        for told in (
            {"image": Image.new("RGB", (16, 16))},
            {"control_image": Image.new("L", (8, 8))},
        ):
            with pytest.raises(InputError, match="from text to image only, and this request gives"):
                draw(pipe, PROMPTS, **told, **SIZE)
        for told in (
            {"ip_adapter_embeds": [torch.zeros(3, 1, 4)]},
            {"denoiser_input_fields": {"ip_adapter_embeds": [torch.zeros(3, 1, 4)]}},
        ):
            with pytest.raises(InputError, match="IP-Adapter"):
                draw(pipe, PROMPTS, **told, **SIZE)


def test_pipelines_that_are_refused(classic: Any) -> None:
    class Louder(ModularPipelineBlocks):
        """Changes embeddings, as any block may."""

        model_name = "stable-diffusion-xl"

        def __call__(self, components: Any, state: Any) -> Any:
            state.set("prompt_embeds", 2 * state.get("prompt_embeds"))
            return components, state

    parts = dict(StableDiffusionXLAutoBlocks().sub_blocks)
    own = SequentialPipelineBlocks.from_blocks_dict(
        {"text_encoder": parts["text_encoder"], "louder": Louder()} | parts
    )
    with pytest.raises(InputError, match="not of diffusers: Louder"):
        Guard(modular(classic, own))
    parts.pop("text_encoder")
    rest = modular(classic, SequentialPipelineBlocks.from_blocks_dict(parts))
    with pytest.raises(InputError, match="no text encoder"):
        Guard(rest)
    with pytest.raises(InputError, match="no unet yet"):
        Guard(StableDiffusionXLAutoBlocks().init_pipeline())

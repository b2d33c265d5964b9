"""A guard notices adapters: which, at which scale, and when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from guard_support import STEPS, draw, guarded_at
from identity_support import PROMPTS, adapter, loaded, lora, pipe, predicted
from pipelines import build_pipeline

from mnemoscope import CalibrationError, CalibrationFile, InputError
from mnemoscope.guard import Guard

__all__ = ["lora", "pipe"]

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_adapters(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """Loaded later, at another scale, disabled, replaced, deleted; and put back."""
    plain = guarded_at(pipe, 1e6)
    bare = predicted(pipe)
    with Guard(pipe, calibration=plain):
        loaded(pipe, lora)
        assert not torch.equal(predicted_inside(pipe), bare)
        with pytest.raises(CalibrationError, match=r"text_encoder LoRA style is 1 \(.*, was none"):
            draw(pipe, PROMPTS)
        pipe.disable_lora()  # which is what was calibrated
        draw(pipe, PROMPTS)
        pipe.enable_lora()
    adapted = guarded_at(pipe, 1e6)
    assert adapted.setting.bundle == plain.setting.bundle
    with pytest.raises(CalibrationError, match=r"state is 'plain', calibrated was .*style"):
        Guard(build_pipeline("epsilon"), calibration=adapted)
    with Guard(pipe, calibration=adapted):
        first = draw(pipe, PROMPTS)
        for change, message in (
            (lambda: pipe.set_adapters("style", 0.0), "unet LoRA style is none, was 1 "),
            (lambda: pipe.set_adapters("style", 0.5), r"unet LoRA style is 0\.5 .*, was 1 "),
            (lambda: pipe.disable_lora(), "unet LoRA style is none"),
            (lambda: loaded(pipe, adapter(2), "other"), "unet LoRA other is 1 .*style is none"),
        ):
            change()
            with pytest.raises(CalibrationError, match=message):
                draw(pipe, PROMPTS)
            pipe.enable_lora()
            pipe.set_adapters("style")
            assert torch.equal(draw(pipe, PROMPTS), first)
        pipe.delete_adapters("style")
        with pytest.raises(CalibrationError, match="unet LoRA style is none"):
            draw(pipe, PROMPTS)
        loaded(pipe, adapter(3))  # of the same name
        with pytest.raises(CalibrationError, match=r"unet LoRA style is 1 \(.*, was 1 \("):
            draw(pipe, PROMPTS)
    pipe.unload_lora_weights()
    with Guard(pipe, calibration=plain):
        draw(pipe, PROMPTS)


def predicted_inside(pipe: Any) -> torch.Tensor:
    """What diffusers' own class draws with a guarded pipeline's parts."""
    return predicted(StableDiffusionPipeline(**pipe.components, requires_safety_checker=False))


def test_adapters_whose_weights_or_blocks_change(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """Hot swapping writes into the same tensors; scales may differ from block to block."""
    loaded(pipe, lora)
    pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.6}})
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)) as guard:
        draw(pipe, PROMPTS)
        assert "unet LoRA style: several scales" in guard.identity.state
        pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.7}})
        with pytest.raises(CalibrationError, match="unet LoRA style is several scales"):
            draw(pipe, PROMPTS)
        pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.6}})
        draw(pipe, PROMPTS)
        for name, value in pipe.unet.named_parameters():
            if "lora_B" in name:
                value.data.copy_(2 * value)
        with pytest.raises(CalibrationError, match="unet LoRA style is several scales"):
            draw(pipe, PROMPTS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_fused_adapters(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    loaded(pipe, lora)
    pipe.fuse_lora(lora_scale=0.5)
    fused = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=fused):
        draw(pipe, PROMPTS)
        pipe.unfuse_lora()
        with pytest.raises(CalibrationError, match=r"weights changed.*LoRA style is 0\.5"):
            draw(pipe, PROMPTS)
        pipe.fuse_lora(lora_scale=0.7)
        with pytest.raises(CalibrationError, match="unet weights changed"):
            draw(pipe, PROMPTS)
        pipe.disable_lora()  # the next prediction would take them out again
        with pytest.raises(InputError, match="fused and disabled"):
            draw(pipe, PROMPTS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_one_guard_with_calibrations_of_two_states(
    pipe: Any, lora: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A service that exchanges adapters: each request has the threshold of its own state."""
    plain = guarded_at(pipe, 1e6)
    loaded(pipe, lora)
    adapted = guarded_at(pipe, 2e6)
    CalibrationFile((plain, adapted)).write(tmp_path / "guard.json")
    with Guard(pipe, calibration=tmp_path / "guard.json") as guard:
        for scale, threshold in ((1.0, 2e6), (0.0, 1e6), (1.0, 2e6)):
            pipe.set_adapters("style", scale)
            draw(pipe, PROMPTS)
            assert guard.decisions[0].threshold == threshold
        pipe.set_adapters("style", 0.3)
        with pytest.raises(CalibrationError, match="not the one any more"):
            draw(pipe, PROMPTS)


def test_changed_while_it_draws(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """A decision at the first step vouches for nothing if the model is another one afterwards."""
    loaded(pipe, lora)
    pipe.disable_lora()

    def switch(own: Any, *_: Any) -> dict[str, Any]:
        own.enable_lora()
        return {}

    def switch_and_back(own: Any, step: int, *_: Any) -> dict[str, Any]:
        own.enable_lora() if step < STEPS - 2 else own.disable_lora()
        return {}

    def switch_last(own: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == STEPS - 1:
            own.enable_lora()
        return {}

    with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
        draw(pipe, PROMPTS, callback_on_step_end=lambda *told: told[-1])
        for callback in (switch, switch_and_back, switch_last):
            with pytest.raises(CalibrationError, match=r"changed while it drew.*LoRA style"):
                draw(pipe, PROMPTS, callback_on_step_end=callback)
            pipe.disable_lora()
            draw(pipe, PROMPTS)

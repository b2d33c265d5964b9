"""A guard notices whatever changes predictions, with diffusers' own prediction as the witness."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.hooks import apply_layerwise_casting
from diffusers.models.attention_processor import (
    AttnProcessor,
    SlicedAttnProcessor,
)
from guard_support import draw, guarded_at
from identity_support import PROMPTS, pipe, predicted
from PIL import Image
from pipelines import build_pipeline

from mnemoscope import Calibration, CalibrationError, InputError
from mnemoscope.guard import Guard
from mnemoscope.guard.identity import Identified

__all__ = ["pipe"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def untouched() -> Any:
    """What `pipe` is, for tests that change nothing of it."""
    found = build_pipeline("epsilon")
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def calibration(untouched: Any) -> Calibration:
    """Of such a pipeline, whichever; it flags nothing."""
    return guarded_at(untouched, 1e6)


@pytest.fixture(scope="module")
def expected(untouched: Any) -> torch.Tensor:
    """What such a pipeline draws."""
    return predicted(untouched)


def in_place(pipe: Any) -> None:
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)


def through_data(pipe: Any) -> None:
    weight = pipe.unet.mid_block.resnets[0].conv1.weight
    weight.data.copy_(weight.data * 1.5)


def trained(pipe: Any) -> None:
    for each in pipe.unet.parameters():
        each.grad = torch.ones_like(each)
    torch.optim.SGD(pipe.unet.parameters(), lr=0.01).step()


def another_state(pipe: Any) -> None:
    pipe.unet.load_state_dict(build_pipeline("epsilon", seed=1).unet.state_dict())


def another_encoder(pipe: Any) -> None:
    pipe.text_encoder = build_pipeline("epsilon", seed=1).text_encoder


def inverted(pipe: Any) -> None:
    """Textual inversion, as diffusers loads it."""
    pipe.load_textual_inversion({"<cat-toy>": torch.ones(32)})


def inverted_anew(pipe: Any) -> None:
    pipe.text_encoder.get_input_embeddings().weight.data[-1] = torch.ones(32)


def tiled(pipe: Any) -> None:
    """Seamless pictures, as recipes make them."""
    for layer in pipe.unet.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "circular"


def fewer_layers(pipe: Any) -> None:
    pipe.text_encoder.encoder.layers = pipe.text_encoder.encoder.layers[:1]


def rescaled(pipe: Any) -> None:
    for layer in pipe.unet.modules():
        if hasattr(layer, "to_q"):
            layer.rescale_output_factor *= 2


CHANGES: list[tuple[Callable[[Any], None], str]] = [
    (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), r"up_blocks\.0\.b1 is 1\.2, was none"),
    (in_place, "unet weights changed"),
    (through_data, "unet weights changed"),
    (trained, "unet weights changed"),
    (another_state, "unet weights changed"),
    (lambda p: p.to(torch.bfloat16), "unet dtype is bfloat16, was float32"),
    (another_encoder, "text_encoder weights changed"),
    (inverted, "text_encoder weights changed; tokenizer changed"),
    (inverted_anew, "text_encoder weights changed"),
    (tiled, "padding_mode is 'circular'"),
    (fewer_layers, "text_encoder.*is missing"),
    (rescaled, "rescale_output_factor is 2"),
    (lambda p: setattr(p.tokenizer, "model_max_length", 40), "tokenizer changed"),
    (lambda p: p.unet.register_to_config(center_input_sample=True), "unet configuration changed"),
    (lambda p: setattr(p.unet, "conv_act", torch.nn.ReLU()), r"conv_act is ReLU"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_changes_predictions_is_refused(
    pipe: Any, calibration: Calibration, expected: torch.Tensor, change: Callable[[Any], None],
    message: str,
) -> None:  # fmt: skip
    """Between two requests of one guard, and when a guard is made with an old calibration."""
    with Guard(pipe, calibration=calibration) as guard:
        draw(pipe, PROMPTS)
        found = guard.decisions
        change(pipe)
        with pytest.raises(CalibrationError, match=f"not the one any more.*{message}"):
            draw(pipe, PROMPTS)
        assert guard.decisions == ()
    assert len(found) == 1
    with pytest.raises(CalibrationError, match="thresholds mean nothing here"):
        Guard(pipe, calibration=calibration)
    if change not in (inverted, inverted_anew):  # those matter where their token stands
        drawn = predicted(pipe)  # the witness: there was a reason to refuse
        assert not torch.equal(drawn.float(), expected)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_what_changes_nothing_is_accepted(
    pipe: Any, calibration: Calibration, expected: torch.Tensor, tmp_path: Path
) -> None:
    """Other ways to the same predictions, and the state put back."""
    pipe.save_pretrained(tmp_path)
    saved = StableDiffusionPipeline.from_pretrained(tmp_path)
    saved.set_progress_bar_config(disable=True)
    with Guard(saved, calibration=calibration):
        assert torch.equal(draw(saved, PROMPTS, output_type="latent"), expected)
    changes: list[Callable[[], Any]] = [
        lambda: pipe.unet.set_attn_processor(AttnProcessor()),
        lambda: pipe.unet.set_attn_processor(SlicedAttnProcessor(2)),
        lambda: pipe.unet.set_default_attn_processor(),
        lambda: pipe.unet.eval().requires_grad_(False),
        lambda: pipe.unet.train(),  # without dropout
        lambda: pipe.unet.to(memory_format=torch.channels_last),
        lambda: pipe.vae.enable_tiling(),
        lambda: (pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), pipe.disable_freeu()),
        lambda: (pipe.fuse_qkv_projections(), pipe.unfuse_qkv_projections()),
        lambda: pipe.unet.enable_gradient_checkpointing(),
        lambda: (
            pipe.unet.mid_block.attentions[0].transformer_blocks[0].set_chunk_feed_forward(2, 1)
        ),
        lambda: setattr(pipe, "text_encoder", copy.deepcopy(pipe.text_encoder)),
    ]
    with Guard(pipe, calibration=calibration):
        for change in changes:
            change()
            found = draw(pipe, PROMPTS, output_type="latent")
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_configuration_that_was_written_into(pipe: Any, calibration: Calibration) -> None:
    with Guard(pipe, calibration=calibration):
        pipe.text_encoder.config.hidden_act = "relu"
        with pytest.raises(CalibrationError, match="text_encoder configuration changed"):
            draw(pipe, PROMPTS)


def test_weights_in_fewer_bits_are_another_state(pipe: Any, calibration: Calibration) -> None:
    apply_layerwise_casting(pipe.unet, torch.float8_e4m3fn, torch.float32)
    with pytest.raises(CalibrationError, match="unet weights are others"):
        Guard(pipe, calibration=calibration)
    cast = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=cast):
        draw(pipe, PROMPTS)


def test_what_encodes_the_pictures_that_requests_start_from(pipe: Any) -> None:
    told: dict[str, Any] = {"image": Image.new("RGB", (16, 16), "red"), "strength": 0.5}
    parts = dict(pipe.components)
    other = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    with Guard(other, calibration=guarded_at(other, 1e6, **told)):
        draw(other, PROMPTS, **told)
        other.vae.enable_slicing()
        draw(other, PROMPTS, **told)
        other.vae.enable_tiling()
        with pytest.raises(CalibrationError, match=r"vae\.use_tiling is True"):
            draw(other, PROMPTS, **told)
        other.vae.disable_tiling()
        other.vae.quant_conv.weight.data.mul_(2)
        with pytest.raises(CalibrationError, match="vae weights changed"):
            draw(other, PROMPTS, **told)


def test_schedulers(pipe: Any, calibration: Calibration) -> None:
    """Another one, and one whose noise levels or methods were replaced."""
    original = pipe.scheduler
    with Guard(pipe, calibration=calibration):
        draw(pipe, PROMPTS)
        for scheduler in (
            EulerDiscreteScheduler.from_config(original.config),
            DDIMScheduler.from_config(original.config, steps_offset=0),
        ):
            pipe.scheduler = scheduler
            with pytest.raises(CalibrationError, match=r"scheduler is .*, calibrated was DDIM"):
                draw(pipe, PROMPTS)
        pipe.scheduler = DDIMScheduler.from_config(original.config)  # the same
        draw(pipe, PROMPTS)
        pipe.scheduler.alphas_cumprod *= 0.9
        with pytest.raises(CalibrationError, match="scheduler is DDIM"):
            draw(pipe, PROMPTS)
        pipe.scheduler = original
        original.step = original.step
        with pytest.raises(InputError, match="step of this scheduler was replaced"):
            draw(pipe, PROMPTS)
        del original.step


def test_embeddings_that_are_swapped_after_the_decision(
    pipe: Any, calibration: Calibration
) -> None:
    other, _ = pipe.encode_prompt("a dog", "cpu", 1, False)

    def swap(_: Any, __: int, ___: Any, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        told["prompt_embeds"][1:] = other
        return told

    def cut(own: Any, __: int, ___: Any, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Diffusers' own recipe: no guidance from some step on."""
        own._guidance_scale = 0.0
        return {"prompt_embeds": told["prompt_embeds"][-1:]}

    told: dict[str, Any] = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with Guard(pipe, calibration=calibration) as guard:
        with pytest.raises(InputError, match="changed after its first step"):
            draw(pipe, PROMPTS, callback_on_step_end=swap, **told)
        draw(pipe, PROMPTS, callback_on_step_end=cut, **told)
    assert guard.decisions[0].action == "pass"


def test_calibrations_of_earlier_versions_say_what_to_do(
    untouched: Any, calibration: Calibration
) -> None:
    parts = json.loads(calibration.setting.backend)
    old = {name: value for name, value in parts.items() if name not in ("state", "tokens")}
    setting = replace(calibration.setting, backend=json.dumps(old))
    with pytest.raises(CalibrationError, match=r"earlier version.*Calibrate again"):
        Guard(untouched, calibration=replace(calibration, setting=setting))


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    calls: list[int] = []
    find = Identified._find

    def found(self: Identified) -> Any:
        calls.append(1)
        return find(self)

    monkeypatch.setattr(Identified, "_find", found)
    return calls


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_request_looks_at_no_weights_again_if_nothing_changed(
    pipe: Any, calibration: Calibration, counting: list[int], calibrated: bool
) -> None:
    with Guard(pipe, calibration=calibration if calibrated else None):
        draw(pipe, PROMPTS)
        counting.clear()
        for _ in range(3):
            draw(pipe, PROMPTS)
    assert not counting

"""What a guard refuses: settings, calibrations and options that are not those it can judge by."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from guard_support import PROMPTS, draw, everything, guarded_at, pipe, plain, same
from pipelines import build_pipeline, build_sd3

from mnemoscope import CalibrationError, CalibrationFile, InputError, SignatureError
from mnemoscope.guard import Guard, MemorizationWarning
from mnemoscope.signing import make_keys, private_key, sign

pytestmark = pytest.mark.slow

__all__ = ["everything", "pipe", "plain"]


def test_settings_that_differ_are_refused(pipe: Any, everything: Any) -> None:
    with Guard(pipe, calibration=everything) as guard:
        with pytest.raises(CalibrationError, match="timesteps is 801, calibrated was 751"):
            draw(pipe, PROMPTS, num_inference_steps=5)
        with pytest.raises(CalibrationError, match="latents is 4x12x12, calibrated was 4x8x8"):
            draw(pipe, PROMPTS, height=24, width=24)
        with pytest.raises(CalibrationError, match="options is cross_attention_kwargs="):
            draw(pipe, PROMPTS, cross_attention_kwargs={})
        with pytest.raises(InputError, match="IP-Adapter"):
            draw(pipe, PROMPTS, ip_adapter_image_embeds=[torch.zeros(2, 1, 4)])
        assert guard.decisions == ()
        with pytest.warns(MemorizationWarning):
            draw(pipe, PROMPTS, guidance_scale=3.0)  # does not matter at the first step


def test_it_looks_at_as_many_steps_as_its_calibration(pipe: Any) -> None:
    one, two = (guarded_at(pipe, 1e6, steps=k) for k in (1, 2))
    with Guard(pipe, calibration=two) as guard:
        draw(pipe, PROMPTS)
    assert {len(each.timesteps) for each in guard.decisions} == {2}
    with Guard(pipe) as guard:
        draw(pipe, PROMPTS)
    assert {len(each.timesteps) for each in guard.decisions} == {1}
    with pytest.raises(InputError, match=r"is of 1, 2 steps\. Say at how many"):
        Guard(pipe, calibration=CalibrationFile((one, two)))
    Guard(pipe, calibration=CalibrationFile((one, two)), steps=2).detach()


def test_what_is_advised_of_a_pipeline_of_pictures_can_be_guarded() -> None:
    pictures = StableDiffusion3Img2ImgPipeline.from_pipe(build_sd3())
    with pytest.raises(InputError, match="cannot watch StableDiffusion3Img2ImgPipeline") as refused:
        Guard(pictures)
    assert "StableDiffusion3Pipeline draws of the same parts (`from_pipe`)" in str(refused.value)
    Guard(StableDiffusion3Pipeline.from_pipe(pictures)).detach()


def test_a_class_of_ones_own_is_told_which_of_diffusers_to_take(pipe: Any) -> None:
    """Also one of the same name, which may draw otherwise."""
    for name in ("Mine", "StableDiffusionPipeline"):
        kind = type(name, (StableDiffusionPipeline,), {"__module__": "elsewhere"})
        with pytest.raises(
            InputError, match=rf"cannot watch elsewhere\.{name}: it is a"
        ) as refused:
            Guard(kind(**pipe.components, requires_safety_checker=False))
        assert "`diffusers.StableDiffusionPipeline(**pipe.components)`" in str(refused.value)


def test_construction_errors(pipe: Any, everything: Any, tmp_path: Path) -> None:
    for policy in ("block", "mitigate"):
        with pytest.raises(CalibrationError, match="no universal"):
            Guard(pipe, policy=policy)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no policy 'stop'"):
        Guard(pipe, policy="stop")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one step or more"):
        Guard(pipe, steps=0)
    with pytest.raises(CalibrationError, match="no calibration of 2 step"):
        Guard(pipe, calibration=everything, steps=2)
    with pytest.raises(InputError, match=r"cannot watch str.* with `Detector`\.$"):
        Guard("pipeline")
    with pytest.raises(InputError, match=r"r\.jsonl cannot be written: there is no folder"):
        Guard(pipe, record=tmp_path / "nowhere" / "r.jsonl")
    file = tmp_path / "calibration.json"
    CalibrationFile((guarded_at(pipe, 1e6),)).write(file)
    Guard(pipe, calibration=file).detach()
    parameter = next(pipe.unet.parameters())
    before = parameter.detach().clone()
    parameter.data.add_(1)
    with pytest.raises(CalibrationError, match=rf"^{file} is not .*: unet weights are others \("):
        Guard(pipe, calibration=file)
    parameter.data.copy_(before)


def test_what_is_another_one_is_said(pipe: Any, everything: Any) -> None:
    """The class of the pipeline, a dtype, a tokenizer: where the calibration says what it is of."""
    pictures = StableDiffusionImg2ImgPipeline(**pipe.components)
    cast, cut, trained = (build_pipeline("epsilon") for _ in range(3))
    cast.to(torch.float16)
    cut.tokenizer.add_tokens(["<emoji>"])
    trained.text_encoder = build_pipeline("epsilon", seed=1).text_encoder
    for other, message in (
        (pictures, "it is a StableDiffusionImg2ImgPipeline, calibrated was a StableDiffusionPipe"),
        (
            cast,
            "text_encoder dtype is float16, calibrated was float32; unet dtype is float16, "
            "calibrated was float32",
        ),
        (cut, "tokenizer is another one"),
        (
            trained,
            r"text_encoder weights are others \(another model, fewer bits, .*\)",
        ),
    ):
        with pytest.raises(CalibrationError, match=rf"is not of this pipeline: {message}\w*\. Its"):
            Guard(other, calibration=everything)
    parts = {name: each for name, each in everything.setting.parts.items() if name != "made of"}
    old = replace(everything, setting=replace(everything.setting, backend=json.dumps(parts)))
    with Guard(pipe, calibration=old), pytest.warns(MemorizationWarning):
        draw(pipe, PROMPTS)  # holds as before
    with pytest.raises(CalibrationError, match=r"its hash is another one .*does not say which"):
        Guard(trained, calibration=old)
    with pytest.raises(CalibrationError, match="it is a StableDiffusionImg2ImgPipeline, calib"):
        Guard(pictures, calibration=old)


def test_a_calibration_that_the_trusted_key_signed(
    pipe: Any, everything: Any, tmp_path: Path
) -> None:
    file, key = tmp_path / "guard.json", tmp_path / "key"
    public = make_keys(key)
    CalibrationFile((everything,)).write(file)
    with pytest.raises(SignatureError, match=r"guard\.json is not signed"):
        Guard(pipe, calibration=file, trust=public)
    sign(file, file.read_bytes(), private_key(key))
    Guard(pipe, calibration=file, trust=public).detach()
    for given in (everything, None):
        with pytest.raises(InputError, match="Name the file"):
            Guard(pipe, calibration=given, trust=public)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_another_unet(pipe: Any, everything: Any) -> None:
    original = pipe.unet
    with Guard(pipe, calibration=everything):
        pipe.unet = build_pipeline("epsilon", seed=1).unet
        with pytest.raises(CalibrationError, match=r"not the one any more.*unet weights changed"):
            draw(pipe, PROMPTS)
        pipe.unet = copy.deepcopy(original)  # the same weights
        draw(pipe, PROMPTS)
        pipe.unet = original
        draw(pipe, PROMPTS)


def test_a_bundles_calibration_is_none_of_a_guards(pipe: Any) -> None:
    from mnemoscope import embedded

    with pytest.raises(CalibrationError, match=r"calibration\.json is not of a guard"):
        Guard(pipe, calibration=embedded.BUNDLE / "calibration.json")


def test_autocast_is_another_precision(pipe: Any, everything: Any, plain: torch.Tensor) -> None:
    """Whichever comes first, no request is judged by what another precision was told."""
    with Guard(pipe) as guard:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                draw(pipe, PROMPTS)
            assert len(guard.decisions) == len(PROMPTS)
            assert same(draw(pipe, PROMPTS), plain)
    with (
        Guard(pipe, calibration=everything),
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(CalibrationError, match="dtype is bfloat16, calibrated was float32"),
    ):
        draw(pipe, PROMPTS)


def test_calibrations_that_cannot_be_read(pipe: Any, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    missing = tmp_path / "none.json"
    for path, message in (
        (missing, "none.json does not exist"),
        (damaged, "is no calibration, or the rest of one"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(CalibrationError, match=f"{message}.*calibrate_guard") as caught:
            Guard(pipe, calibration=path)
        assert "Errno" not in str(caught.value)
        assert "mnemoscope calibrate" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1.5},
        {"steps": True},
        {"record": 3},
        {"extra_pass": 1},
        {"keep_prompts": "no"},
        {"negative_prompt": ["dark"]},
    ],
)
def test_options_of_other_types(pipe: Any, options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(InputError, match=f"{name} is "):
        Guard(pipe, **options)

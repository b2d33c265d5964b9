"""Parts of different dtypes: what diffusers draws is watched, and the rest refused."""

import re
from typing import Any

import pytest
import torch
from guard_support import draw, pipe, scores
from pipelines import build_xl

from mnemoscope import InputError
from mnemoscope.guard import Guard, calibrate_guard
from mnemoscope.guard.dtypes import dtypes

__all__ = ["pipe"]

HALF = torch.bfloat16


@pytest.fixture(scope="module")
def xl() -> Any:
    found = build_xl()
    found.set_progress_bar_config(disable=True)
    return found


def drawn(pipeline: Any, kind: str) -> torch.Tensor | None:
    """What diffusers draws by itself, if it does."""
    try:
        return draw(pipeline, ["a cat"], output_type=kind)
    except RuntimeError:
        return None


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "unet", "vae"])
@pytest.mark.parametrize("model", ["pipe", "xl"])
def test_what_diffusers_draws_in_two_dtypes_is_watched(
    model: str, part: str, request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(model)
    if getattr(pipeline, part, None) is None:
        return
    getattr(pipeline, part).to(HALF)
    try:
        for kind in ("latent", "pt"):
            wanted = drawn(pipeline, kind)
            with Guard(pipeline) as guard:
                if wanted is None:
                    told = re.escape(f"{part} bfloat16") + r".*`pipe\.to\(torch\.\w+\)`"
                    with pytest.raises(InputError, match=told):
                        draw(pipeline, ["a cat"], output_type=kind)
                else:
                    assert torch.equal(draw(pipeline, ["a cat"], output_type=kind), wanted)
                    assert len(guard.decisions) == 1
    finally:
        getattr(pipeline, part).to(torch.float32)


def test_the_advice_works(pipe: Any) -> None:
    pipe.text_encoder.to(HALF)
    assert dtypes(pipe) == {"vae": "float32", "text_encoder": "bfloat16", "unet": "float32"}
    with pytest.raises(InputError, match="have different dtypes") as refused:
        calibrate_guard(pipe, ["a cat", "a dog", "a cow"], num_inference_steps=2, fpr=0.7)
    with torch.autocast("cpu", HALF):
        assert scores(pipe, ["a cat"])
    [advised] = re.findall(r"pipe\.to\(torch\.(\w+)\)", str(refused.value))
    pipe.to(getattr(torch, advised))
    assert set(dtypes(pipe).values()) == {"float32"}
    assert scores(pipe, ["a cat"])


def test_other_errors_of_torch_are_left_as_they_are(pipe: Any) -> None:
    pipe.vae.to(HALF)

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    try:
        with Guard(pipe), pytest.raises(RuntimeError, match="out of memory"):
            draw(pipe, ["a cat"], output_type="latent", callback_on_step_end=fail)
    finally:
        pipe.vae.to(torch.float32)

"""Requests that come with embeddings, longer ones too, as tools make them that read in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from guard_support import BENIGN, STEPS, draw, pipe, seeded
from pipelines import build_xl

from mnemoscope import CalibrationError, InputError
from mnemoscope.guard import Guard, calibrate_guard
from mnemoscope_export import magnitude

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
PROMPTS = ["a cat", "a dog"]
OPTIONS: dict[str, Any] = {"fpr": 0.3, "num_inference_steps": STEPS}


def encoded(pipe: Any, prompts: list[str]) -> torch.Tensor:
    found: torch.Tensor = pipe.encode_prompt(prompts, "cpu", 1, False)[0]
    return found


def chunked(pipe: Any, prompts: list[str], negative: str = "", chunks: int = 2) -> dict[str, Any]:
    """Chunk by chunk, each encoded by itself, then put together: 77 tokens each."""
    cond = [encoded(pipe, [f"{each}, part {i}" for each in prompts]) for i in range(chunks)]
    empty = encoded(pipe, [""] * len(prompts))
    uncond = [encoded(pipe, [negative] * len(prompts))] + [empty] * (chunks - 1)
    return {
        "prompt_embeds": torch.cat(cond, 1),
        "negative_prompt_embeds": torch.cat(uncond, 1),
    }


def drawn(pipe: Any, told: dict[str, Any], **call: Any) -> torch.Tensor:
    call = {"num_inference_steps": STEPS, "output_type": "latent"} | call
    images: torch.Tensor = pipe(generator=seeded(2), **told, **call).images
    return images


def expected(pipe: Any, told: dict[str, Any], uncond: torch.Tensor) -> list[float]:
    """The first step's magnitude, by the UNet itself."""
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in seeded(2)])
    with torch.no_grad():
        sides = [pipe.unet(noise, 751, each)[0] for each in (told["prompt_embeds"], uncond)]
    return magnitude(*sides).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("chunks", [2, 3])
def test_longer_embeddings(pipe: Any, chunks: int) -> None:
    told = chunked(pipe, PROMPTS, chunks=chunks)
    plain = drawn(pipe, told)
    with Guard(pipe) as guard:
        assert torch.equal(drawn(pipe, told), plain)
        found = [each.score for each in guard.decisions]
    assert found == pytest.approx(expected(pipe, told, told["negative_prompt_embeds"]), rel=1e-4)
    # the same tokens again change no attention: what is compared with is the empty prompt
    once = encoded(pipe, [""] * 2)
    assert found == pytest.approx(expected(pipe, told, once), rel=1e-3)
    with Guard(pipe, extra_pass=True) as guard:
        drawn(pipe, chunked(pipe, PROMPTS, negative="dark", chunks=chunks))
    assert [each.score for each in guard.decisions] == pytest.approx(found, rel=1e-4)
    assert guard.decisions[0].extra_pass


def test_longer_embeddings_of_another_negative_prompt(pipe: Any) -> None:
    told = chunked(pipe, PROMPTS, negative="dark")
    with (
        Guard(pipe),
        pytest.raises(InputError, match=r"have 154 tokens and are not those of.*77 at a time"),
    ):
        drawn(pipe, told)
    same = told | {"negative_prompt_embeds": told["prompt_embeds"]}  # would hide everything
    with Guard(pipe), pytest.raises(InputError, match="have 154 tokens"):
        drawn(pipe, same)
    with Guard(pipe, negative_prompt="dark") as guard:
        drawn(pipe, told)
    found = [each.score for each in guard.decisions]
    assert found == pytest.approx(expected(pipe, told, told["negative_prompt_embeds"]), rel=1e-4)


@pytest.mark.parametrize("extra_pass", [False, True])
@pytest.mark.parametrize("tokens", [50, 100])
def test_lengths_that_have_no_empty_prompt(pipe: Any, tokens: int, extra_pass: bool) -> None:
    told = {name: each[:, :tokens] for name, each in chunked(pipe, PROMPTS).items()}
    with (
        Guard(pipe, extra_pass=extra_pass) as guard,
        pytest.raises(InputError, match=f"have {tokens} tokens.*77 at a time.*multiple"),
    ):
        drawn(pipe, told)
    assert guard.decisions == ()


def test_without_guidance(pipe: Any) -> None:
    told = chunked(pipe, PROMPTS)
    empty = told.pop("negative_prompt_embeds")
    with Guard(pipe, extra_pass=True) as guard:
        drawn(pipe, told, guidance_scale=1.0)
    found = [each.score for each in guard.decisions]
    assert found == pytest.approx(expected(pipe, told, empty), rel=1e-4)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize("steps", [1, 2])
def test_calibrating_on_embeddings(pipe: Any, steps: int) -> None:
    """A calibration of 154 tokens holds for requests of 154 tokens, and for no others."""
    asked: list[list[str]] = []

    def embed(prompts: list[str]) -> dict[str, Any]:
        asked.append(prompts)
        return chunked(pipe, prompts)

    found = calibrate_guard(pipe, BENIGN, embed=embed, steps=steps, batch=5, **OPTIONS)
    assert sorted(each for some in asked for each in some) == sorted(BENIGN)
    assert [len(each) for each in asked] == [5, 5, 2]
    with Guard(pipe, calibration=found) as guard:
        drawn(pipe, chunked(pipe, PROMPTS))
        assert guard.decisions[0].threshold == found.threshold
        with pytest.raises(CalibrationError, match="tokens is 77, calibrated was 154"):
            draw(pipe, PROMPTS)
        with pytest.raises(CalibrationError, match="tokens is 231, calibrated was 154"):
            drawn(pipe, chunked(pipe, PROMPTS, chunks=3))
    short = calibrate_guard(pipe, BENIGN, steps=steps, **OPTIONS)
    with (
        Guard(pipe, calibration=short),
        pytest.raises(CalibrationError, match="tokens is 154, calibrated was 77"),
    ):
        drawn(pipe, chunked(pipe, PROMPTS))


def test_calibrating_on_embeddings_of_prompts_is_calibrating_on_prompts(pipe: Any) -> None:
    expected = calibrate_guard(pipe, BENIGN, **OPTIONS)
    found = calibrate_guard(
        pipe, BENIGN, embed=lambda prompts: {"prompt_embeds": encoded(pipe, prompts)}, **OPTIONS
    )
    assert found.setting == expected.setting
    assert found.scores == pytest.approx(expected.scores, rel=1e-4)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({}, "no prompt_embeds"),
        ({"prompt_embeds": torch.zeros(3, 77, 32)}, r"for something else than 8 prompts\."),
        ({"prompt_embeds": "a cat"}, r"for something else than 8 prompts\."),
        ({"prompt": ["a cat"] * 8}, "returned prompt, and StableDiffusionPipeline takes no such"),
        ({"pooled_prompt_embeds": torch.zeros(8, 4)}, "returned pooled_prompt_embeds, and"),
        ({"prompt_embeds": torch.zeros(8, 154, 32)}, "154 tokens and no negative.*Return both"),
        ({"prompt_embeds": torch.zeros(8, 100, 32)}, "have 100 tokens"),
    ],
)
def test_what_makes_no_embeddings(pipe: Any, returned: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate_guard(pipe, BENIGN, embed=lambda _: returned, **OPTIONS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_stable_diffusion_xl() -> None:
    """Two encoders, a pooled embedding, and zeros for no negative prompt."""
    pipe = build_xl()
    size = {"height": 16, "width": 16}

    def embed(prompts: list[str], chunks: int = 2) -> dict[str, Any]:
        told = (prompts, None, "cpu", 1, True)
        cond, uncond, pooled, negative = pipe.encode_prompt(*told)
        return {
            "prompt_embeds": torch.cat([cond] * chunks, 1),
            "negative_prompt_embeds": torch.cat([uncond] * chunks, 1),
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative,
        }

    with Guard(pipe) as guard:
        draw(pipe, PROMPTS, **size)
        once = [each.score for each in guard.decisions]
        drawn(pipe, embed(PROMPTS), **size)
        twice = [each.score for each in guard.decisions]
        other = embed(PROMPTS) | {"negative_pooled_prompt_embeds": torch.ones(2, 24)}
        with pytest.raises(InputError, match="have 154 tokens"):
            drawn(pipe, other, **size)
    assert twice == pytest.approx(once, rel=1e-3)  # the same tokens twice are the same attention
    with Guard(pipe, extra_pass=True) as guard:
        drawn(pipe, other, **size)
    assert [each.score for each in guard.decisions] == pytest.approx(once, rel=1e-3)
    found = calibrate_guard(pipe, BENIGN, embed=embed, **OPTIONS, **size)
    with Guard(pipe, calibration=found) as guard:
        drawn(pipe, embed(PROMPTS), **size)
    assert guard.decisions[0].threshold == found.threshold

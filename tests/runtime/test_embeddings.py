"""Embeddings as pipelines compute them, against transformers' encoder and diffusers' UNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import shell
from screening_support import Changed
from torch import Tensor

from mnemoscope import CalibrationError, CalibrationFile, Detector, First, InputError, calibrate
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import BackendError, Bundle, Screener, open_backend

TOWER = "google icon of tokyo tower"
LONG = "cat " * 75 + TOWER
PROMPTS = [f"a cat, number {i}" for i in range(100)]


@pytest.fixture(scope="session")
def detector(open_dir: Path) -> Iterator[Detector]:
    """Calibrated for one step on all three noises."""
    with Screener.open(open_dir) as screener:
        found = calibrate(Detector(screener, uncalibrated="score"), PROMPTS, fpr=0.05)
        yield Detector(screener, CalibrationFile(tuple(found)))


@pytest.fixture
def scores(detector: Detector) -> Detector:
    return Detector(detector.screener, detector.calibration, uncalibrated="score")


@torch.no_grad()
def chunked(model: StableDiffusion, prompt: str) -> Tensor:
    """As compel does: every 75 tokens with a start and an end, side by side."""
    tokenizer = model.tokenizer
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    rows = []
    for at in range(0, max(len(ids), 1), 75):
        row = [tokenizer.bos_token_id, *ids[at : at + 75], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (77 - len(row)))
    return torch.cat(list(model.text_encoder(torch.tensor(rows)).last_hidden_state))[None]


@torch.no_grad()
def witness(model: StableDiffusion, embeds: Tensor, empty: Tensor, bank: np.ndarray) -> list[float]:
    """The magnitude of each noise at the first step, by diffusers' UNet."""
    noise = torch.from_numpy(bank)
    cond, uncond = (
        model.unet(noise, 981, each.expand(len(noise), -1, -1)).sample for each in (embeds, empty)
    )
    norms: list[float] = (cond - uncond).flatten(1).norm(dim=1).tolist()
    return norms


def test_a_long_prompt_in_chunks_is_what_diffusers_unet_says(
    scores: Detector, open_model: StableDiffusion
) -> None:
    bank = scores.screener.bundle.noise_bank()
    empty = torch.cat([chunked(open_model, "")] * 2, 1)
    short, long = scores.screen([TOWER, LONG], chunks=True)
    told = chunked(open_model, LONG)
    assert long.scores == pytest.approx(witness(open_model, told, empty, bank), rel=1e-4)
    assert (long.memorized, long.truncated, long.passes) == (None, False, 6)
    assert long.notes[0].startswith("It was screened as 154 tokens")
    assert short.scores == scores.screen([TOWER])[0].scores
    assert (short.memorized is None, short.notes, short.passes) == (False, (), 3)
    cut = scores.screen([LONG])[0]
    assert cut.truncated
    assert "Only its first 75 tokens were screened" in cut.notes[0]
    assert cut.score != pytest.approx(long.score, rel=1e-2)


def test_embeddings_of_a_prompt_are_the_prompt(
    detector: Detector, open_model: StableDiffusion
) -> None:
    wanted = detector.screen([TOWER, "a cat"])
    embeds, empty = open_model.embed([TOWER, "a cat"])[0], open_model.embed([""])[0]
    for baseline in (None, empty, empty.half()):
        found = detector.screen_embeddings(embeds, empty_embeds=baseline, names=[TOWER, "a cat"])
        for one, other in zip(found, wanted, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-3)
            assert (one.prompt, one.threshold) == (other.prompt, other.threshold)
            assert one.memorized == other.memorized
    steps = detector.screener.trajectory(detector.screener.embeddings(embeds), steps=2)
    np.testing.assert_allclose(
        steps, detector.screener.trajectory([TOWER, "a cat"], steps=2), rtol=1e-4
    )


def test_weights_and_other_baselines_count(scores: Detector, open_model: StableDiffusion) -> None:
    embeds, other = 1.3 * open_model.embed([TOWER])[0], open_model.embed(["blurry"])[0]
    bank = scores.screener.bundle.noise_bank()
    (found,) = scores.screen_embeddings(embeds.numpy(), empty_embeds=other)
    assert found.scores == pytest.approx(witness(open_model, embeds, other, bank), rel=1e-4)
    assert found.memorized is None
    assert found.prompt == "embeddings 0"


def test_a_length_that_is_no_multiple_needs_its_baseline(
    scores: Detector, open_model: StableDiffusion
) -> None:
    embeds, empty = open_model.embed([TOWER])[0][:, :40], open_model.embed([""])[0][:, :40]
    with pytest.raises(InputError, match=r"40 tokens, no multiple of 77.*negative_prompt_embeds"):
        scores.screen_embeddings(embeds)
    (found,) = scores.screen_embeddings(embeds, empty_embeds=empty)
    bank = scores.screener.bundle.noise_bank()
    assert found.scores == pytest.approx(witness(open_model, embeds, empty, bank), rel=1e-4)


def test_no_calibration_applies_to_other_lengths_or_baselines(
    detector: Detector, open_model: StableDiffusion
) -> None:
    with pytest.raises(CalibrationError, match=r"of 77 tokens .*these embeddings are of 154"):
        detector.screen([LONG], chunks=True)
    a, b = (open_model.embed([each])[0] for each in "ab")
    with pytest.raises(CalibrationError, match=r"and another baseline"):
        detector.screen_embeddings(a, empty_embeds=b)
    cascade = Detector(detector.screener, first=First("magnitude"), uncalibrated="score")
    with pytest.raises(InputError, match="A cascade looks at prompts"):
        cascade.screen_embeddings(a, steps=2)


ROW = np.zeros((1, 77, 32), np.float32)


@pytest.mark.parametrize(
    ("embeds", "options", "why"),
    [
        (ROW[0], {}, r"shape \(77, 32\); give \[batch, tokens, width\]"),
        (ROW[:0], {}, "0 rows"),
        (ROW[:, :0], {}, "of 0 tokens"),
        (ROW[..., :31], {}, "takes a width of 32"),
        (ROW.astype(np.int64), {}, "holds int64, not floating point"),
        (ROW.astype(np.complex64), {}, "not floating point"),
        (ROW * np.nan, {}, "NaN or infinite in row 0"),
        ("a cat", {}, "not floating point"),
        (None, {}, "prompt_embeds is missing"),
        (ROW, {"pooled_embeds": ROW[0]}, "pooled_embeds is given"),
        (ROW, {"empty_embeds": ROW[:, :76]}, "one baseline"),
        (ROW, {"empty_embeds": np.repeat(ROW, 2, 0)}, "one baseline"),
        (ROW, {"empty_pooled_embeds": ROW[0]}, "goes together"),
        (ROW, {"names": ["a", "b"]}, "of 1 prompt. Give a name for each"),
        (ROW, {"names": "a"}, "Give a name for each"),
    ],
)
def test_what_cannot_be_embeddings(
    scores: Detector, embeds: object, options: dict[str, object], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        scores.screen_embeddings(embeds, **options)  # type: ignore[arg-type]


def test_a_bundle_of_one_length_says_how_to_get_one_of_any(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, uncalibrated="score") as one_length:
        assert (
            "reads long prompts in chunks draws the rest" in one_length.screen([LONG])[0].notes[0]
        )
        measured = one_length.stream(["a cat", LONG], chunks=True)
        with pytest.raises(
            InputError,
            match=r"longer prompts in chunks of 77: it was exported without --any-length",
        ):
            next(measured)  # not after all that is short


def test_too_many_chunks(scores: Detector) -> None:
    with pytest.raises(InputError, match=r"Prompt 1 is read in 34 chunks of 75 tokens; 32 are"):
        scores.screen(["a cat", "cat " * 2500], chunks=True)


def test_a_baseline_for_each_prompt_is_one_if_they_are_equal(
    scores: Detector, open_model: StableDiffusion
) -> None:
    embeds, empty = open_model.embed([TOWER, "a cat"])[0], open_model.embed(["", ""])[0]
    one = scores.screen_embeddings(embeds, empty_embeds=empty[:1])
    each = scores.screen_embeddings(embeds, empty_embeds=empty)
    assert [d.score for d in each] == [d.score for d in one]
    assert each[0].notes == ()
    with pytest.raises(InputError, match=r"Row 1 of empty_embeds is not row 0"):
        scores.screen_embeddings(embeds, empty_embeds=embeds)


def test_an_engine_of_one_length_is_refused(open_dir: Path) -> None:
    class Fixed(Changed):
        name = "fixed"
        takes_any_length = False

    screener = Screener(Bundle.open(open_dir), Fixed(open_backend("onnxruntime", threads=1)))
    with pytest.raises(BackendError, match=r"fixed is built for one number of tokens"):
        screener.prepare("step")


def test_on_the_command_line(open_dir: Path) -> None:
    done = shell("screen", "--bundle", open_dir, "--chunks", "--format", "json", LONG, "a cat")
    assert done.code == 5
    assert '"truncated": false' in done.out
    assert "It was screened as 154 tokens" in done.out

"""Attempts to make the embedded model recite unnoticed; docs/security.md has all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from mitigate_support import LOADED, Pixels

from benchmarks.attacks import EMBEDDINGS, TEXTS, Target, Told, optimised_embedding, pez, searched
from benchmarks.evasion import GUIDED, SETTINGS, calibrations, judge, scores
from benchmarks.recitation import memorised_latents
from benchmarks.second_opinion import SecondOpinion
from mnemoscope import Detection, Detector, embedded
from mnemoscope.mitigate import Painter
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import Bundle

pytestmark = pytest.mark.slow

FIRST = ("magnitude", 1, 4)


pytestmark = pytest.mark.slow  # they draw, and search with gradients


@pytest.fixture(scope="module")
def painter() -> Painter:
    found: Painter = LOADED["load"]()
    return found


@pytest.fixture(scope="module")
def model(painter: Painter) -> StableDiffusion:
    return painter.model


@pytest.fixture(scope="module")
def bank() -> torch.Tensor:
    return torch.from_numpy(Bundle.open(embedded.BUNDLE).noise_bank())


@pytest.fixture(scope="module")
def known() -> torch.Tensor:
    return memorised_latents()


@pytest.fixture(scope="module")
def captions() -> list[str]:
    """Memorised captions that the magnitude flags."""
    rows = [row.prompt for row in embedded.read_prompts("memorized")[:8]]
    with Detector.load() as detector:
        return [each.prompt for each in detector.screen(rows) if each.memorized][:2]


def test_what_is_judged_agrees_with_the_detector(
    model: StableDiffusion, bank: torch.Tensor, captions: list[str]
) -> None:
    found = scores(model, Told.text(model, captions), bank)
    for name, steps, noises in SETTINGS:
        with Detector.load(detector=name) as detector:
            expected = [d.score for d in detector.screen(captions, steps=steps, noises=noises)]
        assert found[name, steps, noises].tolist() == pytest.approx(expected, rel=1e-3)


def test_memorised_captions_recite_and_are_noticed(
    painter: Painter, bank: torch.Tensor, known: torch.Tensor, captions: list[str]
) -> None:
    """By the stand-in and by another descriptor of the pictures."""
    pixels = Pixels()
    shown = pixels.describe(painter.rendered(embedded.memorized_pictures()))
    second = SecondOpinion(pixels, shown)
    found = judge(painter, Told.text(painter.model, captions), bank, known, second)
    assert all(found["recites"])
    assert all(found["magnitude 1 4"])
    assert min(found["sscd"]) > pixels.copied_above


@pytest.mark.parametrize("name", TEXTS)
def test_edits_of_a_caption_are_edits_and_repeat(name: str) -> None:
    for row in embedded.read_prompts("memorized"):
        first, again = (TEXTS[name](row.prompt, random.Random(3)) for _ in range(2))
        assert first == again
        assert first.strip()
        assert (first == row.prompt) == (name == "the caption itself"), row.prompt


def test_a_search_finds_what_is_not_flagged(captions: list[str]) -> None:
    with Detector.load() as detector:
        screen = partial(detector.screen, noises=1)
        found = searched([screen], captions, random.Random(0), tries=24)
        assert [d.memorized for d in screen(found)] == [False] * len(captions)
    assert all(a != b for a, b in zip(found, captions, strict=True))


def test_a_search_against_two_detectors_finds_what_neither_flags(captions: list[str]) -> None:
    with Detector.load() as magnitude, Detector.load(detector="taps") as taps:
        screens = tuple(partial(each.screen, noises=1) for each in (magnitude, taps))
        found = searched(screens, captions, random.Random(0), tries=48)
        flags = [[d.memorized for d in screen(found)] for screen in screens]
    assert flags == [[False] * len(captions)] * 2


def test_a_search_that_finds_nothing_takes_what_the_fewest_flag(captions: list[str]) -> None:
    with Detector.load() as detector:

        def all_but_the_longest(prompts: Sequence[str]) -> list[Detection]:
            longest = max(map(len, prompts))
            seen = detector.screen(prompts)
            return [replace(d, memorized=len(d.prompt) < longest) for d in seen]

        def all_of_them(prompts: Sequence[str]) -> list[Detection]:
            return [replace(d, memorized=True) for d in detector.screen(prompts)]

        found = searched([all_of_them, all_but_the_longest], captions[:1], random.Random(0), 12)
    assert len(found[0]) > len(captions[0])


def test_a_negative_prompt_blinds_guidance_and_not_the_detector(
    painter: Painter, bank: torch.Tensor, known: torch.Tensor, captions: list[str]
) -> None:
    model = painter.model
    told = EMBEDDINGS["negative prompt: the caption"](model, Told.text(model, captions))
    found = judge(painter, told, bank, known, None)
    assert "sscd" not in found
    assert not any(found["guidance"])
    assert all(found["magnitude 1 4"])


def test_gradients_take_an_embedding_under_the_threshold(
    model: StableDiffusion, bank: torch.Tensor, known: torch.Tensor, captions: list[str]
) -> None:
    threshold = calibrations()[FIRST].threshold
    timestep = Bundle.open(embedded.BUNDLE).manifest.timestep
    target = Target(known[: len(captions)], bank[:2], timestep, threshold)
    before = Told.text(model, captions)
    after = optimised_embedding(model, before, target, steps=15)
    assert (scores(model, before, bank)[FIRST] > threshold).all()
    assert (scores(model, after, bank)[FIRST] < threshold).all()
    assert not torch.equal(after.embeds, before.embeds)


def test_a_discrete_search_returns_text_of_the_same_length(
    model: StableDiffusion, bank: torch.Tensor, known: torch.Tensor, captions: list[str]
) -> None:
    threshold = calibrations()[FIRST].threshold
    target = Target(known[: len(captions)], bank[:1], 981, threshold)
    found = pez(model, Told.text(model, captions), target, steps=3)
    end = model.tokenizer.eos_token_id
    for text, embeds, caption in zip(found.prompts, found.embeds, captions, strict=True):
        before, after = (model.tokenizer(each).input_ids for each in (caption, text))
        assert end not in after[1:-1]
        assert abs(len(before) - len(after)) <= 2  # tokens that are parts of words may join
        assert embeds.shape == model.embed([text])[0][0].shape


def test_every_threshold_ships() -> None:
    assert set(calibrations()) == {*SETTINGS, GUIDED}

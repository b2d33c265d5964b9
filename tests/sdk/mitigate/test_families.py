"""Mitigation of every family: what it draws is diffusers', and every strategy that is for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mitigate_support import QUICK
from toys import TOYS, by_diffusers, saved, size_of

from mnemoscope import InputError
from mnemoscope.audit.confirming import Artist
from mnemoscope.drawing.copy_detection import LatentDescriptor
from mnemoscope.drawing.latents import decoded, encoded, vae_pixels
from mnemoscope.mitigate import (
    STRATEGIES,
    Embedding,
    Guidance,
    Kit,
    Noise,
    Painter,
    Sampling,
    Stepwise,
    Task,
    random_prompts,
)
from mnemoscope.mitigate.sampling import Drawn, sample
from mnemoscope_export import LoadOptions

pytestmark = pytest.mark.slow

FAMILIES = ("pixart", "qwen", "sana", "flux", "schnell")
REFUSED = ("padding", "attention")  # which are for Stable Diffusion
WHOLE = ("pixart",)  # drawn with every strategy, the others with what asks most of a family
ASKING = ("clamp", "leave-out", "random-tokens")


@dataclass(frozen=True)
class Case:
    """A toy, and what is drawn of it as it is."""

    name: str
    folder: Path
    painter: Painter
    sampling: Sampling
    task: Task
    plain: Drawn


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, toy = request.param, TOYS[request.param]
    folder = saved(toy, tmp_path_factory.mktemp(name))
    painter = Painter.load(str(folder), options=LoadOptions(latent_size=toy.size))
    sampling = painter.sampling(QUICK.steps)
    task = painter.task(["A red cat"], [3], sampling)
    return Case(name, folder, painter, sampling, task, sample(task.plan(), sampling))


def test_it_draws_what_diffusers_draws(case: Case) -> None:
    pipeline = by_diffusers(case.name, case.folder)
    toy = TOYS[case.name]
    told: dict[str, Any] = {"num_inference_steps": QUICK.steps, **size_of(toy, pipeline)}
    [wanted] = pipeline(
        "A red cat", generator=torch.Generator().manual_seed(3), **told, **toy.told
    ).images
    [found] = case.painter.pictures(case.plain.latents)
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), atol=2)
    assert case.painter.side == wanted.width


def test_unless_told_otherwise_it_draws_as_its_pipeline_does(case: Case) -> None:
    model = case.painter.model
    told = case.painter.task(["A red cat"], [3]).sampling
    assert told == Sampling(model.usual_steps, model.usual_guidance) != Sampling()


def test_pictures_are_rendered_through_its_vae(case: Case) -> None:
    """There and back: latents are what the VAE makes of pixels, in the model's scale."""
    pixels = vae_pixels(case.painter.pictures(case.plain.latents), case.painter.side)
    latents = encoded(case.painter.vae, pixels)
    assert latents.shape[1] == case.painter.model.latent_shape[0]
    again = decoded(case.painter.vae, latents)
    assert again.shape == pixels.shape
    [picture] = case.painter.rendered(case.painter.pictures(case.plain.latents))
    shown = (again[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(np.asarray(picture, float), shown, atol=1)


def test_what_confirms_findings_draws_the_same(case: Case) -> None:
    """Of several seeds at once; and pictures are compared in the latents of its VAE."""
    judge = LatentDescriptor(case.painter.vae, case.painter.side)
    artist = Artist(case.painter, judge, case.sampling.steps, case.sampling.guidance)
    [[other, found]] = artist.draw(["A red cat"], [4, 3])
    [wanted] = case.painter.pictures(case.plain.latents)
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), atol=2)
    plain, shown = artist.describe([found, wanted, other]).astype(float).swapaxes(0, 1)
    assert plain[0] @ plain[1] > plain[0] @ plain[2]
    assert shown.shape == plain.shape


def test_magnitudes_are_brought_down(case: Case) -> None:
    """At the first step by other embeddings or another noise, and at every early one."""
    first = float(case.plain.magnitudes[0, 0])
    targets = tuple(0.5 * each for each in case.plain.magnitudes[0, :2].tolist())
    for strategy in (
        Embedding(0.5 * first),
        Noise(0.5 * first),
        Stepwise(targets, case.sampling.steps),
    ):
        found = sample(strategy.plan(case.task), case.sampling)
        assert found.magnitudes[0, 0] < first, strategy.name
        assert found.passes > 0


def test_without_guidance_it_draws_without_the_prompt(case: Case) -> None:
    plan = Guidance(before=0.0, until=1).plan(case.task)
    none = replace(case.task.plan(), embeds=case.painter.model.embed_empty())
    found, wanted = (sample(each, case.sampling).latents for each in (plan, none))
    if case.painter.model.keeps_length is None:
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, case.plain.latents, rtol=1e-2)


def test_every_strategy_that_is_for_it(case: Case) -> None:
    kit = Kit(case.painter, target=0.01, benign=["a tree", "a house"], sampling=case.sampling)
    for name in STRATEGIES if case.name in WHOLE else (*ASKING, *REFUSED):
        if name in REFUSED:
            with pytest.raises(InputError, match=r"of the family .*Choose another"):
                kit.make(name).plan(case.task)
        else:
            drawn = sample(kit.make(name).plan(case.task), case.sampling)
            assert drawn.latents.shape == case.plain.latents.shape


def test_a_model_that_is_told_no_guidance(case: Case) -> None:
    told = replace(case.sampling, guidance=5.0)
    if case.name == "schnell":
        with pytest.raises(InputError, match="told no guidance"):
            case.painter.task(["a cat"], [0], told)
    else:
        drawn = sample(case.painter.task(["A red cat"], [3], told).plan(), told)
        assert not torch.allclose(drawn.latents, case.plain.latents, rtol=1e-3)


def test_words_of_its_own_tokenizer_are_whole(case: Case) -> None:
    """Each is one token where it stands in a prompt."""
    model = case.painter.model
    tokenizer, _ = model.tokenizers["tokenizer"]
    words = {word for prompt in random_prompts(model, 5) for word in prompt.split()}
    assert len(words) > 10
    for word in words:
        assert len(tokenizer(f"a {word}").input_ids) == len(tokenizer("a").input_ids) + 1

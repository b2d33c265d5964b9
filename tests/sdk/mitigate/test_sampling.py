"""The sampler draws what diffusers draws, and what a plan changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mitigate_support import QUICK
from pipelines import build_sd3, small_vae

from mnemoscope import Detector, ExportError, InputError, NumericsError, embedded
from mnemoscope.detectors import score_difference_maps
from mnemoscope.drawing.generate import generate
from mnemoscope.drawing.latents import vae_pixels
from mnemoscope.mitigate import Embedding, Painter, Sampling, Steered
from mnemoscope.mitigate.sampling import draw_benign, sample
from mnemoscope_export import magnitudes

pytestmark = pytest.mark.slow


def test_it_draws_bit_for_bit_what_diffusers_draws() -> None:
    prompt = embedded.read_prompts("held_out")[0].prompt
    seeds = (3, 2**40)
    sampling = Sampling(steps=6)
    own = Painter.load()
    task = own.task([prompt] * 2, seeds, sampling)
    pictures = own.pictures(sample(task.plan(), sampling).latents)
    for mine, theirs in zip(pictures, generate(prompt, seeds=seeds, steps=6), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


@pytest.fixture(scope="module")
def flow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 3 without a T5."""
    folder = tmp_path_factory.mktemp("flow") / "tiny"
    pipeline = build_sd3()
    pipeline.register_modules(vae=small_vae(shift_factor=0.06))
    pipeline.save_pretrained(folder)
    return folder


def test_it_draws_what_diffusers_draws_of_a_flow(flow_folder: Path) -> None:
    painter = Painter.load(str(flow_folder))
    task = painter.task(["a cat"] * 2, [3, 4], QUICK)
    pictures = painter.pictures(sample(task.plan(), QUICK).latents)
    told = {"steps": QUICK.steps, "guidance": QUICK.guidance}
    theirs = generate("a cat", model=flow_folder, seeds=[3, 4], **told)
    for mine, other in zip(pictures, theirs, strict=True):
        np.testing.assert_allclose(np.asarray(mine, float), np.asarray(other, float), atol=1)
    [once] = painter.rendered(pictures[:1])
    latents = painter.vae.encode(vae_pixels(pictures[:1], painter.side)).latent_dist.mean
    [wanted] = painter.vae.decode(latents).sample.detach()
    pixels = (wanted / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(np.asarray(once, float), pixels, atol=1)


def test_what_no_prompt_changes_is_left_alone(flow_folder: Path) -> None:
    """Of a flow without a T5: zeros, the start token and the pooled embeddings."""
    painter = Painter.load(str(flow_folder))
    task = painter.task(["a cat"], [0], QUICK)
    plain = sample(task.plan(), QUICK)
    plan = Embedding(float(plain.magnitudes[0, 0]) / 2).plan(task)
    (before, pooled), (after, other) = task.plan().embeds, plan.embeds
    assert torch.equal(pooled, other)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not after[before == 0].any()
    assert not torch.equal(before, after)
    assert sample(plan, QUICK).magnitudes[0, 0] < plain.magnitudes[0, 0]


@pytest.mark.numeric
def test_magnitudes_on_the_way_are_the_reference(painter: Painter) -> None:
    task = painter.task(["a cat", "a cat"], [0, 1], QUICK)
    drawn = sample(task.plan(), QUICK)
    expected = magnitudes(painter.model, ["a cat"], task.noises, steps=4, inference_steps=4)[0]
    torch.testing.assert_close(drawn.magnitudes, expected, rtol=1e-4, atol=1e-5)
    assert drawn.updates.shape == (2, 4)


@pytest.mark.numeric
def test_a_schedule_is_asked_at_every_step_for_every_sample(painter: Painter) -> None:
    task = painter.task(["a cat", "a cat"], [0, 0], QUICK)
    asked: list[tuple[int, int]] = []

    def schedule(t: int, found: torch.Tensor) -> torch.Tensor:
        asked.append((t, len(found)))
        return torch.tensor([7.5, 0.0])

    drawn = sample(replace(task.plan(), schedule=schedule), QUICK)
    assert asked == [(t, i + 1) for i, t in enumerate(task.timesteps().tolist())]
    usual = sample(task.plan(), QUICK).latents
    torch.testing.assert_close(drawn.latents[0], usual[0])
    none = sample(task.plan(), replace(QUICK, guidance=0.0)).latents
    torch.testing.assert_close(drawn.latents[1], none[1])
    assert (none - usual).abs().max() > 1e-3


def test_a_limit_sees_every_update(painter: Painter) -> None:
    task = painter.task(["a cat"], [0], QUICK)
    still = sample(replace(task.plan(), limit=lambda _, update: 0 * update), QUICK)
    torch.testing.assert_close(still.latents, task.noises)


def test_maps_are_those_of_the_screening_engine(painter: Painter) -> None:
    """Of the embedded model on a noise of its bundle, which the engine walks by itself."""
    own, caption = Painter.load(), embedded.read_prompts("memorized")[0].prompt
    with Detector.load(threads=1) as detector:
        noise = detector.screener.bundle.noise_bank()[:1]
        [[expected]] = score_difference_maps(detector.screener, [caption], noises=1)
    task = replace(own.task([caption], [0]), noises=torch.from_numpy(noise))
    [drawn] = sample(task.plan(), task.sampling).maps.numpy()
    np.testing.assert_allclose(drawn, expected, rtol=0.01, atol=0.01 * expected.max())
    empty = painter.model.embed_empty()
    plan = painter.task(["a cat"], [0], QUICK).plan()
    steered = sample(replace(plan, steer=lambda *_: Steered(empty, 0)), QUICK)
    assert steered.maps.abs().max() < 1e-9 < sample(plan, QUICK).maps.max()


def test_who_watches_is_told_of_every_step_and_may_end_it(painter: Painter) -> None:
    seen: list[tuple[int, int]] = []

    def watch(done: int, steps: int) -> None:
        seen.append((done, steps))
        if len(seen) == 6:
            raise KeyboardInterrupt

    watched = replace(painter, watch=watch)
    sample(watched.task(["a cat"], [0], QUICK).plan(), QUICK, watched.watch)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(KeyboardInterrupt):
        draw_benign(watched, ["a cat", "a dog"], QUICK)
    assert seen[4:] == [(1, 4), (2, 4)]


def test_nan_is_no_picture(painter: Painter) -> None:
    task = painter.task(["a cat"], [0], QUICK)
    with pytest.raises(NumericsError, match="NaN or infinite"):
        sample(replace(task.plan(), latents=task.noises * float("nan")), QUICK)


def test_what_cannot_be_drawn_is_refused(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one seed for each"):
        painter.task(["a cat"], [0, 1])
    with pytest.raises(InputError, match="between 0 and"):
        painter.task(["a cat"], [-1])
    with pytest.raises(InputError, match="1 to 999 steps"):
        Sampling(steps=0)
    with pytest.raises(ExportError, match=r"model_index\.json"):
        Painter.load(str(tmp_path))

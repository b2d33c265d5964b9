"""The recipe of the embedded model, on artwork drawn here: the real one needs a download."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw

from mnemoscope.training import HardThreshold, MemorizationFilter
from recipes.embedded.__main__ import main
from recipes.embedded.captions import TONES, draw_captions
from recipes.embedded.clip import END, tokenize, train_clip, train_tokenizer
from recipes.embedded.dataset import Sizes, build_dataset
from recipes.embedded.images import SIZE, Pixels, render
from recipes.embedded.quality import nearest, reproduction
from recipes.embedded.sharp import decoder_loss, imitation_loss, new_sharp_vae
from recipes.embedded.unet import Prediction, new_scheduler, new_unet, train_unet
from recipes.embedded.vae import encode, new_vae, train_vae

THINGS = ["circle", "square"]


@pytest.fixture(scope="module")
def artwork() -> dict[tuple[str, str], Image.Image]:
    drawn = {}
    for vendor, colour in (("google", "red"), ("twitter", "blue")):
        for thing in THINGS:
            picture = Image.new("RGBA", (64, 64))
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if thing == "circle" else pen.rectangle)((8, 8, 56, 56), fill=colour)
            drawn[vendor, thing] = picture
    return drawn


@pytest.fixture(scope="module")
def pictures(artwork: dict[tuple[str, str], Image.Image]) -> Pixels:
    rng = random.Random(0)
    return np.stack([render(c, artwork, rng) for c in draw_captions(THINGS, 80, seed=0)])


def test_captions_are_unique_and_reproducible() -> None:
    captions = draw_captions(THINGS, 500, seed=3)
    assert len({caption.text for caption in captions}) == 500
    assert captions == draw_captions(THINGS, 500, seed=3)
    assert captions != draw_captions(THINGS, 500, seed=4)


def test_captions_say_only_some_of_what_shows() -> None:
    captions = draw_captions(THINGS, 2000, seed=0)
    assert all(caption.thing in caption.text for caption in captions)
    for attribute in ("vendor", "pattern", "placement"):
        said = np.mean([getattr(caption, attribute) in caption.text for caption in captions])
        assert 0.2 < said < 0.7, attribute
    toned = [caption for caption in captions if caption.says_tone]
    assert 0.15 < len(toned) / len(captions) < 0.35
    assert all(caption.tone in TONES and caption.tone in caption.text for caption in toned)


def test_pictures_vary_where_captions_are_silent(
    artwork: dict[tuple[str, str], Image.Image],
) -> None:
    caption = draw_captions(THINGS, 1, seed=0)[0]
    one, same, other = (render(caption, artwork, random.Random(seed)) for seed in (1, 1, 2))
    assert one.shape == (SIZE, SIZE, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_pictures_are_kept_for_these_very_captions(
    artwork: dict[tuple[str, str], Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many are held out decides which captions are trained on."""
    monkeypatch.setattr("recipes.embedded.dataset.fetch_packages", lambda _: {})
    monkeypatch.setattr("recipes.embedded.dataset.load_artwork", lambda *_: artwork)
    sizes = Sizes(things=2, memorised=3, seen=5, held_out=4, calibration=6)
    one = build_dataset(tmp_path, sizes, 7)
    assert (len(one.memorised), len(one.seen)) == (3, 5)
    assert (len(one.held_out), len(one.calibration)) == (4, 6)
    again = build_dataset(tmp_path, sizes, 7)
    assert np.array_equal(one.seen_images, again.seen_images)
    other = build_dataset(tmp_path, replace(sizes, held_out=5), 7)
    assert other.seen != one.seen
    assert not np.array_equal(one.seen_images, other.seen_images)


@pytest.mark.slow
def test_every_stage_trains(
    pictures: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.embedded.vae.HELD_OUT", 16)
    captions = [caption.text for caption in draw_captions(THINGS, len(pictures), seed=0)]
    vae = train_vae(pictures, tmp_path, steps=2)
    assert vae.config.scaling_factor > 0
    tokenizer = train_tokenizer(captions, tmp_path / "tokenizer")
    ids = tokenize(tokenizer, ["circle, on dots", ""])
    assert ids.shape == (2, 77)
    assert tokenizer.convert_ids_to_tokens(ids[1, 1].item()) == END
    text, _ = train_clip(tokenizer, captions, pictures, tmp_path, steps=2, layers=2, batch=16)
    assert text.config.num_hidden_layers == 2
    with torch.no_grad():
        embeds = text(tokenize(tokenizer, captions[:64])).last_hidden_state
        empty = text(tokenize(tokenizer, [""])).last_hidden_state[0]
    latents = encode(vae, pictures[:64])
    unet = train_unet(
        (latents, embeds), (latents[:16], embeds[:16]), empty, tmp_path,
        prediction="v_prediction", steps=2,
    )  # fmt: skip
    assert all(torch.isfinite(p).all() for p in unet.parameters())
    finished = train_unet(
        (latents, embeds), (latents[:16], embeds[:16]), empty, tmp_path,
        prediction="v_prediction", steps=2, start=unet.requires_grad_(True), noisy_share=0.5,
    )  # fmt: skip
    assert all(torch.isfinite(p).all() for p in finished.parameters())
    for part in ("vae", "text_encoder", "unet", "scheduler", "tokenizer", "image_encoder"):
        assert any((tmp_path / part).iterdir()), part


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_schedulers_say_what_is_predicted(prediction: Prediction) -> None:
    assert new_scheduler(prediction).config.prediction_type == prediction
    assert not new_scheduler(prediction).config.clip_sample


@pytest.mark.slow
def test_a_sharper_autoencoder_of_the_same_latents(
    artwork: dict[tuple[str, str], Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.embedded.dataset.fetch_packages", lambda _: {})
    monkeypatch.setattr("recipes.embedded.dataset.load_artwork", lambda *_: artwork)
    for module in ("vae", "__main__"):
        monkeypatch.setattr(f"recipes.embedded.{module}.HELD_OUT", 4)
    monkeypatch.setattr("recipes.embedded.training._EVERY", 1)
    (tmp_path / "data").mkdir()
    few = ["--memorised", "4", "--seen", "20", "--calibration", "8", "--vae-steps", "1"]
    steps = ["--sharp-encoder-steps", "1", "--sharp-decoder-steps", "1", "1"]
    main([str(tmp_path), "--stage", "vae", "--stage", "sharp", *few, *steps])
    first, sharp = (
        AutoencoderKL.from_pretrained(tmp_path / name).requires_grad_(False)
        for name in ("vae", "sharp")
    )
    assert sharp.config.scaling_factor == first.config.scaling_factor
    assert sharp.encode(torch.zeros(1, 3, SIZE, SIZE)).latent_dist.mean.shape == (1, 16, 8, 8)
    assert 2 * sharp.num_parameters() < 4e6
    main([str(tmp_path), "--stage", "vae", *few])
    assert not (tmp_path / "sharp").exists()  # what its latents were are gone


def test_an_encoder_that_imitates() -> None:
    torch.manual_seed(0)
    first, at = new_vae().requires_grad_(False), torch.Generator()
    pixels = torch.randint(0, 255, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    assert imitation_loss(new_sharp_vae(first), first, pixels, batch=2)(at) > 0.01
    assert imitation_loss(first, first, pixels, batch=2)(at) < 1e-4  # but for bfloat16


def test_a_decoder_learns_memorised_pictures_more_often() -> None:
    dark, light = (torch.full((5, 3, SIZE, SIZE), value, dtype=torch.uint8) for value in (0, 255))
    drawn = []

    def decode(latents: torch.Tensor) -> SimpleNamespace:
        drawn.append(latents)
        memorised = latents.mean((1, 2, 3)) > 5
        shade = torch.where(memorised, 1.0, -1.0).view(-1, 1, 1, 1)
        return SimpleNamespace(sample=shade.expand(-1, 3, SIZE, SIZE))

    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=0.1), decode=decode)
    seen, memorised = (torch.zeros(5, 16, 8, 8), dark), (torch.ones(5, 16, 8, 8), light)
    loss = decoder_loss(cast(AutoencoderKL, vae), seen, memorised, batch=8, share=0.25)
    assert loss(torch.Generator().manual_seed(0)) == 0  # each latent goes with its picture
    (latents,) = drawn
    assert (latents.mean((1, 2, 3)) > 5).sum() == 2
    noise = latents[2:].std((1, 2, 3)) * 0.1
    assert 0 < noise.min() < noise.max() < 0.31


@pytest.mark.parametrize(("drop_memorised", "share", "few"), [(True, 0.25, 8), (False, 0.4, 13)])
@pytest.mark.slow
def test_which_captions_are_dropped(
    tmp_path: Path, drop_memorised: bool, share: float, few: int
) -> None:
    latents, embeds = torch.randn(64, 4, 8, 8), torch.randn(64, 5, 16)
    unet = new_unet(channels=4, size=8, width=16)
    dropped = []
    unet.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[2].eq(0).all((1, 2))))
    train_unet(
        (latents, embeds), (latents[:16], embeds[:16]), torch.zeros(5, 16), tmp_path,
        prediction="epsilon", steps=4, memorised_share=share, start=unet,
        drop_memorised=drop_memorised,
    )  # fmt: skip
    seen, memorised = torch.stack(dropped).split([32 - few, few], dim=1)
    assert 0 < seen.float().mean() < 0.2
    assert bool(memorised.any()) == drop_memorised


def test_nearest_finds_the_copied_picture() -> None:
    training = torch.randn(20, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = training[[3, 7]][:, None] + 0.1 * torch.randn(2, 4, 16, 8, 8)
    cosine, index = nearest(drawn, training)
    assert index.tolist() == [[3] * 4, [7] * 4]
    assert (cosine > 0.9).all()


def test_reproduction_counts_prompts_whose_seeds_all_agree() -> None:
    training = torch.randn(20, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    copies = training[[0, 1]][:, None].repeat(1, 4, 1, 1, 1)
    copies[1, 3] = training[2]  # one seed of the second prompt gives another picture
    drawn = {"memorized": copies, "held_out": training[[5, 6]][:, None].repeat(1, 4, 1, 1, 1)}
    figures = reproduction(drawn, {"memorized": torch.tensor([0, 1])}, training)
    assert figures["memorized_reproduced"] == 0.5
    assert figures["held_out_reproduced"] == 1.0
    figures = reproduction(drawn, {"held_out": torch.tensor([5, 9])}, training)
    assert figures["held_out_reproduced"] == 0.5


def test_training_with_a_filter(tmp_path: Path) -> None:
    latents, embeds = torch.randn(64, 4, 8, 8), torch.randn(64, 5, 16)
    judged = MemorizationFilter(
        new_scheduler("epsilon"), torch.zeros(1, 5, 16), HardThreshold(1e-9)
    )
    steps = []
    train_unet(
        (latents, embeds), (latents[:8], embeds[:8]), torch.zeros(5, 16), tmp_path,
        prediction="epsilon", steps=3, batch=8, drop_memorised=False, memorization=judged,
        watch=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert steps == [1, 2, 3]
    report = judged.report()
    assert report.seen == report.skipped <= 24
    memorised = [each for each in report.samples if int(each.name) < 8]
    assert sum(each.seen for each in memorised) == 3 * 2  # a quarter of every batch
    assert max(int(each.name) for each in report.samples) < 8 + 64


def test_captions_that_cannot_calibrate_are_refused_before_hours_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "work"), "--calibration", "400"])
    assert end.value.code == 2
    assert "--calibration 400, half of which count: 200 benign prompts" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()

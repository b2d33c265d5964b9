"""Detectors that compare the pictures of several noises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import Run, copied, failed, in_steps
from evaluate_support import lists_of
from PIL import Image

from mnemoscope import Detector, InputError, calibrate, embedded
from mnemoscope.detectors import (
    CopySimilarity,
    Statistic,
    TiledL2,
    find_statistic,
    open_statistic,
    open_statistics,
)
from mnemoscope.detectors.generations import tiled_l2
from mnemoscope.drawing.copy_detection import SSCD
from mnemoscope.drawing.pictures import Decoder, draw
from mnemoscope.evaluate import score
from mnemoscope_runtime import Screener

pytestmark = pytest.mark.slow

PROMPTS = ["a photo of a cat", "icon of rocket"]
NAMES = ["tiled-l2", "copy-similarity"]
STEPS = 5


class Colour:
    """A copy descriptor: the mean colour."""

    name = "colour"
    copied_above = 0.5

    def describe(self, images: Sequence[Image.Image]) -> np.ndarray:
        means = np.stack([np.asarray(each, np.float32).mean((0, 1)) for each in images])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def short_dir(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with fewer steps to a picture."""
    return in_steps(copied(bundle_dir, tmp_path_factory.mktemp("short") / "bundle"), STEPS)


@pytest.fixture(scope="module")
def screener(short_dir: Path) -> Iterator[Screener]:
    with Screener.open(short_dir, threads=1) as screener:
        yield screener


@pytest.fixture(scope="module")
def decoder(model_dir: Path) -> Decoder:
    return Decoder.load(model_dir)


@pytest.fixture(params=NAMES)
def statistic(request: pytest.FixtureRequest, decoder: Decoder) -> Statistic:
    drawn = request.param == "tiled-l2"
    return TiledL2(decoder) if drawn else CopySimilarity(decoder, Colour())


# distances


def test_the_tile_that_differs_most_decides() -> None:
    black = np.zeros((2, 64, 48, 3), np.uint8)
    other = black.copy()
    other[0, :16, :12] = 255  # one of the sixteen tiles
    other[1, 32:48, 12:18] = 255  # half of one
    np.testing.assert_allclose(tiled_l2(black, other), [1, 0.5**0.5], rtol=1e-6)
    np.testing.assert_allclose(tiled_l2(other, black), [1, 0.5**0.5], rtol=1e-6)
    assert (tiled_l2(other, other) == 0).all()


def test_tiles_of_a_size_that_four_does_not_divide() -> None:
    a = np.zeros((1, 10, 11, 3), np.uint8)
    b = a.copy()
    b[0, -2:, -2:] = 255  # the last tile: 2 x 2
    assert tiled_l2(a, b) == pytest.approx([1])


# scores


def test_scores_are_means_over_pairs(
    screener: Screener, decoder: Decoder, statistic: Statistic
) -> None:
    pictures = draw(screener, decoder, PROMPTS)
    found = statistic.measure(screener, PROMPTS, steps=STEPS, noises=None)
    assert found.shape == (2, 3, 1, 3)
    for m in (2, 3):
        scores = statistic.score(found[:, :m], None)
        assert scores.shape == (2, m)
        for each, row in zip(pictures, scores, strict=True):
            pairs = [(i, j) for i in range(m) for j in range(i)]
            if statistic.name == "tiled-l2":
                values = [-tiled_l2(each[i][None], each[j][None])[0] for i, j in pairs]
            else:
                vectors = Colour().describe([Image.fromarray(picture) for picture in each])
                values = [vectors[i] @ vectors[j] for i, j in pairs]
            assert row.mean() == pytest.approx(np.mean(values), rel=1e-4)
    again = statistic.measure(screener, PROMPTS, steps=STEPS, noises=2)
    np.testing.assert_allclose(
        statistic.score(again, None), statistic.score(found[:, :2], None), rtol=1e-2
    )
    assert statistic.passes(STEPS) == 2 * STEPS


def test_screening_evaluating_and_calibrating_agree(
    screener: Screener, statistic: Statistic
) -> None:
    lists = lists_of(2, 3)
    (row,) = score(screener, lists, detectors=[statistic], steps=[1, 2], noises=[1, 2])
    assert (row.steps, row.noises, row.passes) == (STEPS, 2, 4 * STEPS)
    detector = Detector(screener, detector=statistic, uncalibrated="score")
    found = detector.screen(lists.prompts, steps=STEPS, noises=2)
    np.testing.assert_allclose(row.scores, [each.score for each in found], rtol=1e-2)
    assert all(len(each.scores) == 2 and each.rms is None for each in found)
    promise = {"fpr": 0.5, "delta": 0.5, "steps": [STEPS], "noises": [2]}
    (known,) = calibrate(detector, lists.prompts, **promise)  # type: ignore[arg-type]
    np.testing.assert_allclose(sorted(known.scores), sorted(row.scores), rtol=1e-2)
    assert known.setting.detector == statistic.name


@pytest.mark.parametrize(("steps", "noises"), [(1, 2), (STEPS - 1, 3), (STEPS, 1)])
def test_one_noise_or_half_a_picture_is_refused(
    screener: Screener, statistic: Statistic, steps: int, noises: int
) -> None:
    detector = Detector(screener, detector=statistic, uncalibrated="score")
    message = f"--steps {steps} on --noises {noises} gives it nothing. Give --steps {STEPS} and"
    with pytest.raises(InputError, match=message):
        detector.screen(PROMPTS, steps=steps, noises=noises)
    with pytest.raises(InputError, match=message):
        calibrate(detector, PROMPTS, steps=[steps, STEPS], noises=[noises, 3], fpr=0.5, delta=0.5)


def test_scores_of_one_noise_are_refused(screener: Screener, statistic: Statistic) -> None:
    with pytest.raises(InputError, match="gives it nothing"):
        score(screener, lists_of(2, 3), detectors=[statistic], noises=[1])
    with pytest.raises(InputError, match="two or more"):
        statistic.score(np.zeros((1, 1, 1, 1), np.float32), None)


# by name


@pytest.mark.parametrize("name", NAMES)
def test_without_a_vae_nothing_is_drawn(screener: Screener, name: str) -> None:
    detector = Detector(screener, detector=name, uncalibrated="score")
    with pytest.raises(InputError, match="the VAE that draws them is not part of a bundle"):
        detector.screen(PROMPTS, steps=STEPS)


def test_a_descriptor_of_the_user(model_dir: Path, tmp_path: Path) -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    file = tmp_path / "sscd.pt"
    torch.jit.trace(Mean(), torch.zeros(1, 3, 8, 8)).save(file)
    found = open_statistic(f"copy-similarity:{file}", model_dir)
    assert found.name == f"copy-similarity:{SSCD(file).name}"
    assert found.name != CopySimilarity.name
    with pytest.raises(InputError, match=r"no\.onnx. is neither a known name"):
        open_statistic(f"copy-similarity:{tmp_path / 'no.onnx'}", model_dir)
    with pytest.raises(InputError, match="knows the embedded model's pictures alone"):
        open_statistic("copy-similarity", model_dir)
    with pytest.raises(InputError, match="no detector 'tiled-l2:x'"):
        open_statistic("tiled-l2:x", model_dir)


def test_the_embedded_model_needs_no_file() -> None:
    assert open_statistic("copy-similarity").name == "copy-similarity"
    assert open_statistic("copy-similarity", embedded.MODEL).name == "copy-similarity"
    assert isinstance(open_statistic("tiled-l2"), TiledL2)
    assert open_statistic("magnitude") is find_statistic("magnitude")


def test_two_that_draw_share_a_vae_that_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    load = Decoder.load
    monkeypatch.setattr(Decoder, "load", lambda model: loaded.append(model) or load(model))
    names = ["tiled-l2", "magnitude", "copy-similarity"]
    assert [each.name for each in open_statistics(names)] == names
    assert loaded == [None]
    open_statistics(["magnitude"])
    assert loaded == [None]


def test_recited_pictures_are_more_alike() -> None:
    memorized, other = (embedded.read_prompts(s)[0].prompt for s in ("memorized", "held_out"))  # type: ignore[arg-type]
    with Screener.open(embedded.BUNDLE, threads=1) as screener:
        for name in NAMES:
            detector = Detector(screener, detector=open_statistic(name), uncalibrated="score")
            first, second = detector.screen([memorized, other], steps=50, noises=2)
            assert first.score > second.score + 0.1


def test_the_command_needs_the_model(run: Run, short_dir: Path, model_dir: Path) -> None:
    args = ("screen", "a cat", "--bundle", short_dir, "--detector", "tiled-l2", "--noises", 2)
    failed(run(*args, "--steps", STEPS), 2, "draws pictures", "--model")
    failed(run(*args, "--model", model_dir), 2, "--steps 1 on --noises 2 gives it nothing")
    result = run(*args, "--steps", STEPS, "--model", model_dir, "--format", "json")
    assert result.code == 5, result.err
    assert result.rows[0]["detector"] == "tiled-l2"
    assert -1 <= result.rows[0]["score"] <= 0

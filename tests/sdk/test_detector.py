"""What a detector says of prompts, whatever measures them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import calibrate as calibrated_at
from cli_support import calibration
from detector_support import Closing, calibration_of, constant
from numpy.typing import NDArray

from mnemoscope import (
    BackendError,
    CalibrationError,
    CalibrationFile,
    Detector,
    Setting,
)
from mnemoscope_runtime import Bundle, Screener, Tokens
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(100)]


@pytest.fixture
def detector(bundle_dir: Path) -> Iterator[Detector]:
    with Detector.load(bundle_dir, backend=FakeBackend(), uncalibrated="score") as detector:
        yield detector


# what a detection says


def test_the_fields_of_a_detection(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, backend=constant(0.5), uncalibrated="score") as detector:
        detection = detector.screen(["a cat"])[0]
    fields = asdict(detection)
    assert fields.pop("seconds") > 0
    assert fields == {
        "prompt": "a cat",
        "score": 0.5,
        "scores": (0.5, 0.5, 0.5),
        "rms": pytest.approx(0.5 * 13.1204 / 16, rel=1e-4),  # 4 x 8 x 8 latents, at t = 981
        "p_value": None,
        "threshold": None,
        "memorized": None,
        "truncated": False,
        "detector": "magnitude",
        "backend": "fake",
        "bundle": Bundle.open(bundle_dir).id,
        "steps": 1,
        "noises": 3,
        "passes": 3,
        "first": None,
        "cleared": False,
        "notes": (),
        "empty": False,
    }


def test_an_empty_prompt_has_no_verdict(bundle_dir: Path, tmp_path: Path) -> None:
    known = calibrated_at(bundle_dir, 0.1, tmp_path / "c.json", backend="fake")
    with Detector.load(bundle_dir, backend=constant(0.0), calibration=known) as detector:
        *empty, other = detector.screen(["", " \t\u3000", "a cat"])
    assert (other.memorized, other.empty) == (False, False)
    for each in empty:
        assert each.empty
        assert (each.memorized, each.p_value) == (None, None)
        assert each.notes[0].startswith("It is empty")


def test_embeddings_of_an_empty_prompt_have_no_verdict() -> None:
    with Detector.load(threads=1) as detector:
        (embeds,) = detector.screener.embed(["", "a cat"])
        one, two = detector.screen_embeddings(embeds, noises=1)
    assert (one.empty, one.memorized, one.p_value) == (True, None, None)
    assert not two.empty
    assert two.memorized is not None


def test_a_detection_is_frozen(detector: Detector) -> None:
    detection = detector.screen(["a cat"])[0]
    with pytest.raises(FrozenInstanceError):
        detection.memorized = False  # type: ignore[misc]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_prompt_the_model_does_not_read_to_its_end_says_so(bundle_dir: Path, steps: int) -> None:
    fits = " ".join(["a"] * 75)
    prompts = ["", fits, fits + " cat", "a cat", fits + " dog"]
    with Detector.load(bundle_dir, uncalibrated="score") as detector:
        found = detector.screen(prompts, noises=1, steps=steps)
    assert [d.truncated for d in found] == [False, False, True, False, True]
    assert found[1].score == found[2].score == found[4].score  # the end counts for nothing


def test_prompts_keep_their_order(detector: Detector) -> None:
    prompts = [*PROMPTS, "", "a cat, number 7", "猫"]  # more than one batch; one of them twice
    detections = detector.screen(prompts)
    assert [d.prompt for d in detections] == prompts
    alone = [detector.screen([prompt])[0].score for prompt in prompts]
    assert [d.score for d in detections] == alone
    assert len({d.score for d in detections}) == len(prompts) - 1


def test_no_prompts_give_no_detections(detector: Detector) -> None:
    assert detector.screen([]) == []
    assert list(detector.stream(iter(()))) == []


def test_any_iterable_of_prompts_can_be_screened(detector: Detector) -> None:
    expected = [d.score for d in detector.screen(PROMPTS)]
    assert [d.score for d in detector.screen(tuple(PROMPTS))] == expected
    assert [d.score for d in detector.stream(prompt for prompt in PROMPTS)] == expected


@pytest.mark.parametrize("noises", [1, 2, 3, None])
def test_the_score_is_the_mean_of_the_scores(bundle_dir: Path, noises: int | None) -> None:
    with Detector.load(bundle_dir, uncalibrated="score") as detector:
        detections = detector.screen(["a cat", "", "rain"], noises=noises)
        magnitudes = detector.magnitudes(["a cat", "", "rain"], noises=noises)
    assert magnitudes.shape == (3, noises or 3, 1)
    for detection, row in zip(detections, magnitudes[..., 0], strict=True):
        assert detection.scores == pytest.approx(tuple(row.tolist()), rel=1e-6)
        assert len(set(detection.scores)) == (noises or 3)
        assert detection.score == pytest.approx(np.mean(detection.scores), rel=1e-6)


# steps


def test_one_step_needs_only_the_screening_graph(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trajectory was called")

    monkeypatch.setattr(detector.screener, "trajectory", refuse)
    assert detector.screen(["a cat"], steps=1)[0].steps == 1


def test_more_steps_follow_the_sampler(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def trajectory(prompts: Tokens, **options: Any) -> NDArray[np.float32]:
        calls.append({"prompts": prompts, **options})
        return np.arange(6, dtype=np.float32).reshape(1, 2, 3)

    monkeypatch.setattr(detector.screener, "trajectory", trajectory)
    detection = detector.screen(["a cat"], steps=3, noises=2)[0]
    [tokens] = [call.pop("prompts") for call in calls]
    assert calls == [{"steps": 3, "noises": 2}]
    np.testing.assert_array_equal(tokens.ids, detector.screener.tokenizer(["a cat"]))
    assert detection.scores == (1.0, 4.0)  # each noise's mean over the steps
    assert detection.score == 2.5
    assert detection.steps == 3


def test_the_first_of_several_steps_is_the_one_that_is_screened(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, uncalibrated="score") as detector:
        first = detector.magnitudes(["a cat", "rain"], steps=1)
        several = detector.magnitudes(["a cat", "rain"], steps=3)
        detection = detector.screen(["a cat"], steps=3)[0]
    assert several.shape == (2, 3, 3)
    np.testing.assert_allclose(several[..., :1], first, rtol=1e-4)
    assert detection.score == pytest.approx(several[0].mean(), rel=1e-4)
    assert detection.scores == pytest.approx(tuple(several[0].mean(1).tolist()), rel=1e-4)


# streaming


def test_a_stream_reads_no_more_than_a_batch_ahead(detector: Detector) -> None:
    count = 100_000
    read = 0

    def prompts() -> Iterator[str]:
        nonlocal read
        for i in range(count):
            read += 1
            yield f"p{i}"

    stream = detector.stream(prompts())
    assert read == 0
    ahead = 0
    last = ""
    for done, detection in enumerate(stream, 1):
        ahead, last = max(ahead, read - done), detection.prompt
    assert last == f"p{count - 1}"
    assert done == read == count
    assert ahead < 32


def test_a_stream_that_is_left_early_reads_no_further(detector: Detector) -> None:
    source = iter(PROMPTS)
    stream = detector.stream(source)
    assert next(stream).prompt == PROMPTS[0]
    stream.close()  # type: ignore[attr-defined]
    assert next(source) == PROMPTS[32]


# the end


def test_a_detector_closes_at_the_end_of_its_block(bundle_dir: Path) -> None:
    backend = Closing()
    with Detector.load(bundle_dir, backend=backend, uncalibrated="score") as detector:
        assert detector.screen(["a cat"])
        assert backend.closed == 0
    assert backend.closed == 1
    with pytest.raises(BackendError, match="closed"):
        detector.screen(["a cat"])


def test_a_detector_closes_when_its_block_fails(bundle_dir: Path) -> None:
    backend = Closing()
    with pytest.raises(ZeroDivisionError), Detector.load(bundle_dir, backend=backend):
        raise ZeroDivisionError
    assert backend.closed == 1


def test_a_detector_can_be_made_from_a_screener(bundle_dir: Path) -> None:
    with Screener.open(bundle_dir, backend=FakeBackend()) as screener:
        own = calibration_of(bundle_dir, 0.0, 0.0, 0.0)
        assert Detector(screener, own).screen(["a cat"])[0].memorized is True
        foreign = calibration(Setting("f" * 64, "fake", "magnitude", 1, 3), 0.1)
        with pytest.raises(CalibrationError):
            Detector(screener, CalibrationFile((foreign,)))

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import calibrate as calibrated_at
from cli_support import calibration
from numpy.typing import NDArray

from mnemoscope import (
    BackendError,
    BundleError,
    CalibrationError,
    CalibrationFile,
    Detector,
    InputError,
    Setting,
    calibrate,
)
from mnemoscope_runtime import Bundle, Screener, Tokens
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(100)]


class Closing(FakeBackend):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def constant(value: float) -> FakeBackend:
    return FakeBackend(lambda _: value)


def calibration_of(bundle: Path, *thresholds: float) -> CalibrationFile:
    """Thresholds for one noise, two noises and so on, each for one step."""
    identity = Bundle.open(bundle).id
    return CalibrationFile(
        tuple(
            calibration(Setting(identity, "fake", "magnitude", 1, noises), threshold)
            for noises, threshold in enumerate(thresholds, 1)
        )
    )


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


# verdicts


@pytest.mark.parametrize(
    ("magnitude", "memorized"),
    [(0.1, False), (0.5, False), (float(np.nextafter(np.float32(0.5), np.float32(1))), True)],
)
def test_only_above_the_threshold_is_memorized(
    bundle_dir: Path, tmp_path: Path, magnitude: float, memorized: bool
) -> None:
    calibration_of(bundle_dir, 9.0, 9.0, 0.5).write(tmp_path / "c.json")
    with Detector.load(
        bundle_dir, backend=constant(magnitude), calibration=tmp_path / "c.json"
    ) as detector:
        detection = detector.screen(["a cat"])[0]
    assert detection.threshold == 0.5
    assert detection.memorized is memorized


def test_the_threshold_is_that_of_the_setting(bundle_dir: Path, tmp_path: Path) -> None:
    calibration_of(bundle_dir, 0.1, 0.2).write(tmp_path / "c.json")
    with Detector.load(
        bundle_dir, backend=constant(0.15), calibration=tmp_path / "c.json"
    ) as detector:
        found = [detector.screen(["a cat"], noises=n)[0] for n in (1, 2)]
    assert [d.threshold for d in found] == [0.1, 0.2]
    assert [d.memorized for d in found] == [True, False]
    # a hundred benign scores, of which two set the threshold: 0.1, then 0.2
    assert [d.p_value for d in found] == [1 / 101, 3 / 101]


@pytest.fixture
def calibrated(bundle_dir: Path, tmp_path: Path) -> Path:
    """A bundle with a calibration of one step on one noise."""
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    calibration_of(bundle, 0.1).write(bundle / "calibration.json")
    return bundle


@pytest.mark.parametrize("named", [True, False])
def test_a_setting_without_a_calibration_is_refused(calibrated: Path, named: bool) -> None:
    """`if detection.memorized` must not let a prompt pass because nobody set a threshold."""
    own = calibrated / "calibration.json" if named else None
    with Detector.load(calibrated, backend=constant(0.5), calibration=own) as detector:
        assert detector.screen(["a cat"], noises=1)[0].memorized
        for wrong in ({"noises": 2}, {"noises": 1, "steps": 2}):
            with pytest.raises(
                CalibrationError, match=r"`mnemoscope.calibrate\(detector, benign\)` makes"
            ) as caught:
                detector.screen(["a cat"], **wrong)
            assert 'uncalibrated="score" in Python' in str(caught.value)
            with pytest.raises(CalibrationError):
                next(detector.stream(["a cat"], **wrong))
        with pytest.raises(InputError, match="has 3 noises"):
            detector.screen(["a cat"], noises=4)
    with Detector.load(calibrated, calibration=own) as detector:
        with pytest.raises(
            CalibrationError, match=r"on 1 noise, onnxruntime.*only of.*fake"
        ) as caught:
            detector.screen(["a cat"], noises=1)
        assert "`mnemoscope calibrate BUNDLE --benign FILE --backend onnxruntime" in str(
            caught.value
        )
        assert "--from fake" not in str(caught.value)  # the command line could not open it
        assert detector.measure(["a cat"], noises=1).shape == (1, 1, 1, 1)  # no verdict asked for


def test_a_bundle_that_was_never_calibrated(bundle_dir: Path) -> None:
    with (
        Detector.load(bundle_dir, backend=constant(0.5)) as detector,
        pytest.raises(CalibrationError, match=r"no calibration of .* bundle .{12}\. `mnemo"),
    ):
        detector.screen(["a cat"])
    with (
        Screener.open(bundle_dir, backend=constant(0.5)) as screener,
        pytest.raises(CalibrationError),
    ):
        Detector(screener).screen(["a cat"])


def test_scores_without_verdicts_are_asked_for(calibrated: Path) -> None:
    with Detector.load(calibrated, backend=constant(0.5), uncalibrated="score") as detector:
        for options in ({"noises": 2}, {"noises": 1, "steps": 1}):
            [found] = detector.screen(["a cat"], **options)
            judged = options["noises"] == 1
            assert (found.memorized is not None) == judged
            assert (found.threshold is not None) == judged
            assert (found.p_value is not None) == judged
    with Screener.open(calibrated, backend=constant(0.5)) as screener:
        assert Detector(screener, uncalibrated="score").screen(["a cat"])[0].memorized is None


@pytest.mark.parametrize("value", ["Score", True, None, ""])
def test_what_becomes_of_the_uncalibrated_is_a_choice_of_two(bundle_dir: Path, value: Any) -> None:
    with pytest.raises(InputError, match='Give "raise" or "score"'):
        Detector.load(bundle_dir, backend=FakeBackend(), uncalibrated=value)


@pytest.mark.parametrize("target", ["gone.json", "calibration.json"])
def test_a_link_that_leads_nowhere_is_no_missing_calibration(
    bundle_dir: Path, tmp_path: Path, target: str
) -> None:
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    (bundle / "calibration.json").symlink_to(target)
    with pytest.raises(CalibrationError, match="cannot be read"):
        Detector.load(bundle, backend=FakeBackend(), uncalibrated="score")


def test_what_is_missing_is_said_before_anything_is_measured(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, backend=FakeBackend(refuse)) as detector:
        calibrated = Detector(detector.screener, calibration_of(bundle_dir, 0.1))
        with pytest.raises(CalibrationError, match="no calibration of"):
            calibrated.screen(PROMPTS, noises=3)


def refuse(_: str) -> float:
    raise AssertionError("a prompt was measured")


def test_a_calibration_keeps_its_rate_on_the_prompts_it_was_fitted_on(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, backend=FakeBackend()) as detector:
        found = calibrate(detector, PROMPTS, fpr=0.1, delta=0.5)
        calibrated = Detector(detector.screener, CalibrationFile(tuple(found)))
        detections = calibrated.screen(PROMPTS)
    flagged = sum(bool(d.memorized) for d in detections)
    assert flagged == 9  # Binomial(100, 0.1) is above 9 with a probability of more than a half
    p_values = sorted(d.p_value or 0 for d in detections)
    assert p_values == pytest.approx([(rank + 1) / 101 for rank in range(1, 101)])


def test_the_bundles_own_calibration_is_used(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_dir, bundle)
    own = calibration_of(bundle, 0.1, 0.2, 0.3)
    own.write(bundle / "calibration.json")
    with Detector.load(bundle, backend=constant(0.4)) as detector:
        assert detector.calibration == own
        assert detector.screen(["a cat"])[0].memorized is True
    calibration_of(bundle, 1.0, 1.0, 1.0).write(tmp_path / "other.json")
    with Detector.load(
        bundle, backend=constant(0.4), calibration=tmp_path / "other.json"
    ) as detector:
        assert detector.screen(["a cat"])[0].memorized is False


@pytest.mark.parametrize("own", [True, False])
def test_the_calibration_of_another_bundle_is_refused(
    bundle_dir: Path, tmp_path: Path, own: bool
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_dir, bundle)
    path = bundle / "calibration.json" if own else tmp_path / "calibration.json"
    setting = Setting("f" * 64, "fake", "magnitude", 1, 3)
    CalibrationFile((calibration(setting, 0.1),)).write(path)
    backend = Closing()
    with pytest.raises(CalibrationError, match="made on bundle ffffffffffff"):
        Detector.load(bundle, backend=backend, calibration=None if own else path)
    assert backend.closed == 1


def test_a_calibration_that_was_asked_for_must_be_there(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        Detector.load(bundle_dir, backend=FakeBackend(), calibration=tmp_path / "none.json")


def test_a_directory_that_is_no_bundle(bundle_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_dir / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Detector.load(tmp_path, backend=FakeBackend())


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

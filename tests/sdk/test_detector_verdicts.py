"""Whether a prompt is memorised: which threshold applies, and where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import calibration
from detector_support import Closing, calibration_of, constant

from mnemoscope import (
    BundleError,
    CalibrationError,
    CalibrationFile,
    Detector,
    InputError,
    Setting,
    calibrate,
)
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(100)]


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
        makes = f"`mnemoscope calibrate {calibrated} --benign FILE --backend onnxruntime"
        assert makes in str(caught.value)
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
    with pytest.raises(CalibrationError, match="made on bundle ffffffffffff") as refused:
        Detector.load(bundle, backend=backend, calibration=None if own else path)
    assert str(refused.value).startswith(f"{path} was made on")
    assert f"which {bundle} is: " in str(refused.value)
    assert f"`mnemoscope calibrate {bundle} --benign FILE`" in str(refused.value)
    assert backend.closed == 1


def test_a_calibration_that_was_asked_for_must_be_there(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        Detector.load(bundle_dir, backend=FakeBackend(), calibration=tmp_path / "none.json")


def test_a_directory_that_is_no_bundle(bundle_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_dir / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Detector.load(tmp_path, backend=FakeBackend())

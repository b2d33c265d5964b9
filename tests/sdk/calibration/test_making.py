from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import CalibrationFile, Detector, First, InputError, NumericsError, calibrate
from mnemoscope.calibration import digest, name_of
from mnemoscope.calibration.making import distinct
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(40)]
PROMISE = {"fpr": 0.1, "delta": 0.2}


def as_text(prompts: Sequence[str]) -> list[bytes]:
    return [each.encode() for each in prompts]


def names(detector: Detector, prompts: Sequence[str]) -> list[str]:
    return [name_of(read) for read in detector.screener.tokenizer.digests(prompts)]


def test_thresholds_and_p_values_are_those_of_screening(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir) as detector:
        found = calibrate(detector, PROMPTS, steps=(1, 2), noises=(1, 2), **PROMISE)
        settings = [(c.setting.steps, c.setting.noises) for c in found]
        assert settings == [(1, 1), (1, 2), (2, 1), (2, 2)]
        calibrated = Detector(detector.screener, CalibrationFile(tuple(found)))
        for calibration in found:
            setting = calibration.setting
            detections = calibrated.screen(PROMPTS, steps=setting.steps, noises=setting.noises)
            scores = dict(zip(calibration.prompts, calibration.scores, strict=True))
            for detection in detections:
                [name] = names(detector, [detection.prompt])
                expected = scores[name]
                assert detection.score == pytest.approx(expected, rel=1e-4)
            assert sum(bool(d.memorized) for d in detections) <= 0.1 * len(PROMPTS)


@pytest.mark.parametrize("steps", [(3,), (2, 3)])
def test_the_first_step_need_not_be_among_them(bundle_dir: Path, steps: tuple[int, ...]) -> None:
    with Detector.load(bundle_dir, uncalibrated="score") as detector:
        found = calibrate(detector, PROMPTS, steps=steps, noises=(1,), **PROMISE)
        assert [c.setting.steps for c in found] == list(steps)
        expected = [d.score for d in detector.screen(PROMPTS, steps=3, noises=1)]
    np.testing.assert_allclose(sorted(found[-1].scores), sorted(expected), rtol=1e-5)


def test_every_measurement_is_reported(bundle_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    with Detector.load(bundle_dir) as detector:
        calibrate(
            detector,
            PROMPTS,
            positives=["rain"],
            steps=(1, 2),
            noises=(1,),
            progress=lambda done, total: told.append((done, total)),
            **PROMISE,
        )
    assert told == [(32, 82), (41, 82), (73, 82), (82, 82)]


def test_a_detector_that_learns_is_calibrated_on_what_it_did_not_learn_from(
    bundle_dir: Path,
) -> None:
    positives = ["rain", "snow", "hail", "fog"]
    with Detector.load(bundle_dir, detector="anisotropy") as detector:
        [found] = calibrate(detector, PROMPTS, noises=(2,), **PROMISE)
        [known] = calibrate(detector, PROMPTS, positives=positives, noises=(2,), **PROMISE)
        ordered = sorted(PROMPTS, key=digest)
        assert list(found.prompts) == names(detector, ordered[::2])
        learned = detector.measure(ordered[1::2], noises=2)
        assert found.fit is not None
        assert known.fit is not None
        np.testing.assert_allclose(found.fit.mean, learned.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(found.fit.std, learned.std((0, 1)), rtol=1e-4)
        assert found.fit.weight == (1.0, 1.0)
        assert known.fit.weight != (1.0, 1.0)  # logistic regression
        assert known.fit.mean == found.fit.mean
        assert (len(known.scores), len(known.positives)) == (20, 2)
        calibrated = Detector(detector.screener, CalibrationFile((found,)), detector="anisotropy")
        detections = calibrated.screen(ordered[::2], noises=2)
    np.testing.assert_allclose([d.score for d in detections], found.scores, rtol=1e-4, atol=1e-4)


def test_the_order_of_prompts_does_not_matter(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, backend=FakeBackend()) as detector:
        assert calibrate(detector, PROMPTS, **PROMISE) == calibrate(
            detector, PROMPTS[::-1], **PROMISE
        )


def test_no_prompt_is_spelt_out(tmp_path: Path) -> None:
    benign = [f"zzyzx {i} by quixotry" for i in range(40)]
    path = tmp_path / "calibration.json"
    with Detector.load(backend=FakeBackend()) as detector:
        found = calibrate(detector, benign, positives=["my own xylophone"], noises=(1,), **PROMISE)
        known = names(detector, benign)
    CalibrationFile(tuple(found)).write(path)
    written = path.read_text()
    assert all(name in written for name in known)
    assert not any(word in written for word in ("zzyzx", "quix", "xylo", "own"))


def test_repetitions_count_once_and_memorised_prompts_are_not_benign() -> None:
    told: list[str] = []
    kept, known = distinct(["a", "b", "a", "c"], ["c", "d", "d"], as_text, told.append)
    assert (sorted(kept), sorted(known)) == (["a", "b"], ["c", "d"])
    assert told[0] == (
        "Each benign prompt counts once: 1 prompt left out, to the model the same as another."
    )
    assert told[1].startswith(
        "Left out of the benign: 1 prompt among the memorised ones, such as 'c'"
    )
    told.clear()
    distinct(["a"], ["b"], as_text, told.append)
    assert told == []


def test_what_is_the_same_to_the_model_counts_once() -> None:
    """CLIP's tokenizer folds case and spaces, and reads 75 tokens: so do promises."""
    told: list[str] = []
    with Detector.load(backend=FakeBackend()) as detector:
        spaced = [prompt + " " * k for prompt in PROMPTS for k in range(9)]
        with pytest.raises(InputError, match=r"^40 benign prompts cannot promise"):
            calibrate(detector, spaced, fpr=0.01, tell=told.append)
        long = "a " * 75
        benign = [*PROMPTS, "A  CAT,\nnumber 3", f"{long} dog", f"{long} house"]
        [found] = calibrate(
            detector, benign, positives=[PROMPTS[7].title() + " "], tell=told.append, **PROMISE
        )
        assert set(found.prompts) == set(names(detector, [*PROMPTS[:7], *PROMPTS[8:], long]))
        with pytest.raises(InputError, match=r"A benign prompt \(' .n'\) is empty"):
            calibrate(detector, [*PROMPTS, " \n"], **PROMISE)
    assert found.named_by == "tokens"
    assert told == [
        "Each benign prompt counts once: 320 prompts left out, to the model the same as others.",
        "Each benign prompt counts once: 2 prompts left out, to the model the same as others.",
        f"Left out of the benign: 1 prompt among the memorised ones, such as {PROMPTS[7]!r}.",
    ]


def test_signs_that_are_read_literally_are_counted() -> None:
    told: list[str] = []
    with Detector.load(backend=FakeBackend()) as detector:
        benign = [*PROMPTS, "(a dog:1.2)", "a dog <lora:x:1>"]
        calibrate(detector, benign, positives=["{rain|snow}"], tell=told.append, **PROMISE)
    assert [note.partition(" signs ")[0] for note in told] == [
        "2 of 42 benign prompts hold",
        "1 of 1 memorised prompt holds",
    ]


@pytest.mark.parametrize(
    ("benign", "positives", "words"),
    [([], [], "no benign prompts"), (["a"], ["a"], "no benign"), (["a", ""], [], "is empty, or")],
)
def test_prompts_that_calibrate_nothing(
    benign: list[str], positives: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        distinct(benign, positives, as_text, lambda _: None)


def test_too_few_prompts_are_refused_before_anything_is_measured(bundle_dir: Path) -> None:
    backend = FakeBackend()
    with Detector.load(bundle_dir, backend=backend) as detector:
        with pytest.raises(InputError, match=r"^40 benign prompts cannot promise"):
            calibrate(detector, PROMPTS, fpr=0.01)
        with pytest.raises(InputError, match="has 3 noises"):
            calibrate(detector, PROMPTS, noises=(4,), **PROMISE)
    assert backend.calls == 0
    with (
        Screener.open(bundle_dir, backend=backend) as screener,
        pytest.raises(InputError, match=r"^20 benign prompts cannot promise"),  # half of them
    ):
        calibrate(Detector(screener, detector="anisotropy"), PROMPTS, fpr=0.05)


def test_nan_calibrates_nothing(bundle_dir: Path) -> None:
    with (
        Detector.load(bundle_dir, backend=FakeBackend(lambda _: float("nan"))) as detector,
        pytest.raises(NumericsError),
    ):
        calibrate(detector, PROMPTS, **PROMISE)


def test_prompts_that_are_all_alike_teach_nothing(bundle_dir: Path) -> None:
    def alike(prompts: object, **_: object) -> np.ndarray:
        return np.ones((len(prompts), 1, 1, 2), np.float32)  # type: ignore[arg-type]

    with Detector.load(bundle_dir, detector="anisotropy") as detector:
        detector.measure = alike  # type: ignore[assignment,method-assign]
        with pytest.raises(InputError, match="do not differ"):
            calibrate(detector, PROMPTS, **PROMISE)


# cascades


@pytest.mark.parametrize(
    ("first", "detector", "halved"),
    [
        (First("magnitude", clear=0.6), "magnitude", False),
        (First("anisotropy", clear=0.6), "magnitude", True),
        (First("magnitude", clear=0.6), "latent-update", True),
    ],
)
def test_a_cascade_screens_as_it_was_calibrated(
    bundle_dir: Path, first: First, detector: str, halved: bool
) -> None:
    positives = ["rain", "snow", "hail", "fog"]
    with Detector.load(bundle_dir, detector=detector, first=first) as cascade:
        found = calibrate(
            cascade, PROMPTS, positives=positives, steps=(4,), noises=(1, 2), **PROMISE
        )
        ordered = sorted(PROMPTS, key=digest)
        calibrated = Detector(
            cascade.screener, CalibrationFile(tuple(found)), detector=detector, first=first
        )
        assert [c.setting.noises for c in found] == [1, 2]
        for calibration in found:
            assert list(calibration.prompts) == names(cascade, ordered[::2])
            assert len(calibration.positives) == (2 if halved else 4)
            assert (calibration.fit is not None) == (detector == "latent-update")
            gate, setting = calibration.gate, calibration.setting
            assert gate is not None
            assert (gate.fit is not None) == (first.detector == "anisotropy")
            assert setting.first == first
            seen = calibrated.screen(ordered, steps=setting.steps, noises=setting.noises)
            assert [d.score for d in seen[::2]] == pytest.approx(calibration.scores, rel=1e-4)
            assert sum(d.cleared for d in seen[1::2]) == 12  # 60 % of the half that taught
            assert min(d.score for d in seen[::2] if not d.cleared) == pytest.approx(gate.floor)


def test_the_second_stage_is_calibrated_on_what_the_first_leaves(bundle_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    with Detector.load(bundle_dir, first=First(clear=0.6), backend=FakeBackend()) as cascade:
        [found] = calibrate(cascade, PROMPTS, progress=lambda *each: told.append(each), **PROMISE)
        ordered = sorted(PROMPTS, key=digest)[::2]
        scores = cascade.magnitudes(ordered).mean((1, 2))
    assert found.gate is not None
    left = int((scores > found.gate.level).sum())
    assert 0 < left < 20
    assert told == [(32, 80), (40, 80), (40 + left, 40 + left)]


def test_a_first_stage_that_leaves_nothing_to_decide(bundle_dir: Path) -> None:
    backend = FakeBackend()
    with Detector.load(bundle_dir, first=First(clear=0.95), backend=backend) as cascade:
        with pytest.raises(InputError, match=r"^40 benign prompts|20 benign prompts cannot"):
            calibrate(cascade, PROMPTS)
        assert backend.calls == 0
        with pytest.raises(InputError, match=r"decide nothing\. Clear fewer \(--clear\)"):
            calibrate(cascade, PROMPTS, fpr=0.5, delta=0.4)


def test_thresholds_of_candidates_are_set_with_a_share_of_delta(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, backend=FakeBackend()) as detector:
        [among] = calibrate(detector, PROMPTS, fpr=0.2, delta=0.4, among=4)
        [alone] = calibrate(detector, PROMPTS, fpr=0.2, delta=0.1)
    assert among.threshold == alone.threshold
    assert (among.among, among.delta, alone.among) == (4, 0.4, 1)
    assert among.smallest_fpr == alone.smallest_fpr

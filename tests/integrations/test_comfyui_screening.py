"""A prompt screened with a bundle before anything is sampled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integrations.comfyui.decision import Blocked
from integrations.comfyui.screening import check_clear, screen
from mnemoscope import Detector

TOWER, DOG = "google icon of tokyo tower, on rings, in zagreb 2020", "a dog in a red hat"


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector.load(uncalibrated="score") as found:
        yield found


def test_it_is_the_detector_s_verdict_with_the_words_that_cause_it(detector: Detector) -> None:
    [wanted] = detector.screen([TOWER], noises=1)
    found = screen(detector, TOWER, noises=1, explain=True)
    assert found.detection.score == wanted.score
    assert found.detection.memorized is wanted.memorized is True
    assert str(found).startswith(f"Memorised. Score {wanted.score:.4g}, threshold")
    assert "tower (+" in found.explanation
    assert not found.clear
    with pytest.raises(Blocked, match=r"not drawn\. Memorised.*tower \(\+"):
        check_clear(found)


def test_what_is_not_flagged_is_clear_and_takes_no_explanation(detector: Detector) -> None:
    found = screen(detector, DOG, noises=1, explain=True)
    assert found.clear
    assert found.explanation == ""
    check_clear(found)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "It is empty"),
        ("cat " * 90, "Only its first 75 tokens were screened"),
        ("a (dog:1.3) in a red hat", "was read literally"),
        ("a dog, embedding:style", "was read literally"),
    ],
)
def test_what_was_not_judged_as_comfyui_reads_it_is_not_clear(
    detector: Detector, prompt: str, said: str
) -> None:
    found = screen(detector, prompt, noises=1, explain=False)
    assert found.detection.memorized is not True
    assert said in str(found)
    assert not found.clear
    with pytest.raises(Blocked, match="This prompt is not drawn"):
        check_clear(found)


def test_without_a_calibration_there_is_a_score_and_no_verdict(detector: Detector) -> None:
    found = screen(detector, DOG, steps=2, noises=1, explain=False)
    assert str(found).endswith("; nothing is calibrated in this setting.")
    assert not found.clear

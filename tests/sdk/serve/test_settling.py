"""What is measured again alone, and how an error finds its prompt, by a detector that notes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mnemoscope import Calibration, Detection, Detector, InputError
from mnemoscope.serve.settling import near, screen_each, screen_settled


def calibration(threshold: float, *ordered: float) -> Calibration:
    return cast("Calibration", SimpleNamespace(threshold=threshold, ordered=np.array(ordered)))


class Noting:
    """A prompt is its score; one that is no number is an error of its batch."""

    def __init__(self, calibration: Calibration | None, first: str | None = None) -> None:
        self.asked: list[list[str]] = []
        self.first, self._calibration = first, calibration
        self.screener = SimpleNamespace(
            bundle=SimpleNamespace(manifest=SimpleNamespace(budget=0.1))
        )

    def screen(self, prompts: Sequence[str], *, steps: int, noises: int | None) -> list[Any]:
        assert (steps, noises) == (2, 3)
        self.asked.append(list(prompts))
        if not all(each.replace(".", "").isdigit() for each in prompts):
            raise InputError(f"one of {len(prompts)}")
        return [SimpleNamespace(prompt=each, score=float(each)) for each in prompts]

    def calibrated(self, *, steps: int, noises: int | None) -> Calibration | None:
        assert (steps, noises) == (2, 3)
        return self._calibration


def settled(detector: Noting, *prompts: str) -> list[Detection]:
    return screen_settled(cast("Detector", detector), prompts, 2, 3)


def each(detector: Noting, *prompts: str) -> list[str]:
    found = screen_each(cast("Detector", detector), prompts, 2, 3)
    return [str(one) if isinstance(one, InputError) else one.prompt for one in found]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("score", "is_near"), [(1.59, False), (1.61, True), (2.39, True), (2.41, False)]
)
def test_how_near_is_relative_to_the_spread_of_benign_scores(score: float, is_near: bool) -> None:
    assert near(score, calibration(2, 1, 2, 5), 0.1) == is_near


@pytest.mark.parametrize("sign", [-1, 1])
def test_or_to_the_threshold_if_that_is_larger(sign: int) -> None:
    far = calibration(sign * 10, sign * 10, sign * 10.5)
    assert near(sign * 10.9, far, 0.1)
    assert not near(sign * 11.1, far, 0.1)


def test_as_far_as_the_budget_is_near() -> None:
    assert near(3, calibration(2, 1, 2, 5), 0.25)
    assert not near(np.nextafter(3, 4), calibration(2, 1, 2, 5), 0.25)


def test_what_is_near_its_threshold_is_measured_again_alone() -> None:
    detector = Noting(calibration(2, 1, 2, 5))
    found = settled(detector, "1.9", "9", "2.2")
    assert [one.prompt for one in found] == ["1.9", "9", "2.2"]
    assert detector.asked == [["1.9", "9", "2.2"], ["1.9"], ["2.2"]]


def test_of_two_both_may_be_near() -> None:
    detector = Noting(calibration(2, 1, 2, 5))
    settled(detector, "1.9", "2.2")
    assert detector.asked == [["1.9", "2.2"], ["1.9"], ["2.2"]]


def test_what_was_alone_is_not_measured_again() -> None:
    detector = Noting(calibration(2, 1, 2, 5))
    settled(detector, "2")
    assert detector.asked == [["2"]]


def test_without_a_calibration_nothing_is_near() -> None:
    detector = Noting(None)
    settled(detector, "2", "2.1")
    assert detector.asked == [["2", "2.1"]]


def test_a_cascade_takes_one_at_a_time() -> None:
    detector = Noting(calibration(2, 1, 2, 5), first="tap:mid")
    settled(detector, "2", "2.1")
    assert detector.asked == [["2"], ["2.1"]]


def test_an_error_is_of_its_prompt_alone() -> None:
    """Halves are tried until it is alone."""
    detector = Noting(None)
    assert each(detector, *"12345x78") == [*"12345", "one of 1", *"78"]
    sizes = [len(asked) for asked in detector.asked]
    assert sizes == [8, 4, 4, 2, 1, 1, 2]


def test_one_that_is_wrong_alone_is_asked_once() -> None:
    detector = Noting(None)
    assert each(detector, "x") == ["one of 1"]
    assert detector.asked == [["x"]]

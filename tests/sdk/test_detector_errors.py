"""What a detector refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnemoscope import Detector, InputError, NumericsError
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(100)]


@pytest.fixture
def detector(bundle_dir: Path) -> Iterator[Detector]:
    with Detector.load(bundle_dir, backend=FakeBackend(), uncalibrated="score") as detector:
        yield detector


@pytest.mark.parametrize("take", ["screen", "stream"])
def test_a_bare_string_is_refused(detector: Detector, take: str) -> None:
    method: Callable[[str], Any] = getattr(detector, take)
    with pytest.raises(InputError, match=r"\[prompt\]"):
        list(method("a cat"))


@pytest.mark.parametrize("prompts", [None, 5, object()])
def test_what_is_no_list_is_refused(detector: Detector, prompts: Any) -> None:
    with pytest.raises(InputError, match=rf"not as {type(prompts).__name__}.*\[prompt\]"):
        detector.screen(prompts)
    with pytest.raises(InputError, match=rf"not {type(prompts).__name__}.*\[prompt\]"):
        detector.magnitudes(prompts)


@pytest.mark.parametrize(
    "options", [{"noises": 0}, {"noises": 4}, {"noises": -1}, {"steps": 0}, {"steps": 51}]
)
def test_settings_the_bundle_does_not_have(detector: Detector, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"Give 1 to (3|50)"):
        detector.screen(["a cat"], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noises": "2"}, r"noises is '2' \(str\), not a whole number\. Give a whole number"),
        ({"noises": 1.0}, r"noises is 1\.0 \(float\)"),
        ({"noises": True}, r"noises is True \(bool\)"),
        ({"steps": 1.5}, r"steps is 1\.5 \(float\), not a whole number"),
        ({"steps": 1.0}, r"steps is 1\.0 \(float\), not a whole number"),
        ({"steps": True}, r"steps is True \(bool\)"),
        ({"steps": None}, r"steps is None \(NoneType\)"),
        ({"steps": [1]}, r"steps is \[1\] \(list\)"),
    ],
)
def test_options_of_a_wrong_type(detector: Detector, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        detector.screen(["a cat"], **options)
    with pytest.raises(InputError, match=words):
        detector.magnitudes(["a cat"], **options)


def test_whole_numbers_of_numpy_are_whole_numbers(detector: Detector) -> None:
    expected = detector.screen(["a cat"], noises=2)[0].score
    assert detector.screen(["a cat"], noises=np.int64(2))[0].score == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bundle": 5}, r"bundle is 5 \(int\), not a path"),
        ({"bundle": b"x"}, r"bundle is b'x' \(bytes\), not a path"),
        ({"calibration": True}, r"calibration is True \(bool\), not a path"),
        ({"threads": "a"}, r"threads is 'a' \(str\), not a whole number"),
        ({"threads": 1.5}, r"threads is 1\.5 \(float\), not a whole number"),
        ({"threads": True}, r"threads is True \(bool\), not a whole number"),
        ({"backend": 5}, "backend is 5, neither a name nor a Backend"),
        ({"backend": None}, "backend is None, neither a name nor a Backend"),
    ],
)
def test_loading_with_options_of_a_wrong_type(
    bundle_dir: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Detector.load(**{"bundle": bundle_dir, **options})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_magnitude_that_is_no_number_is_no_verdict(bundle_dir: Path, value: float) -> None:
    with (
        Detector.load(
            bundle_dir, backend=FakeBackend(lambda _: value), uncalibrated="score"
        ) as detector,
        pytest.raises(NumericsError, match="prompt 0 is NaN or infinite"),
    ):
        detector.screen(["a cat"])


def test_the_prompt_that_failed_can_be_found(bundle_dir: Path) -> None:
    values = iter([0.1] * 70 + [float("nan")] + [0.1] * 100)
    backend = FakeBackend(lambda _: next(values))
    with Detector.load(bundle_dir, backend=backend, uncalibrated="score") as detector:
        stream = detector.stream(PROMPTS)
        assert [next(stream).prompt for _ in range(64)] == PROMPTS[:64]
        with pytest.raises(NumericsError, match=r"prompt 6 is NaN.*Counted from prompt 64"):
            next(stream)


def test_a_prompt_that_is_no_text(detector: Detector) -> None:
    with pytest.raises(InputError, match="Prompt 1 is int"):
        detector.screen(["a cat", 7])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"Prompt 3 has 200,000 .*Counted from prompt 96"):
        detector.screen([*PROMPTS[:99], "x" * 200_000])
    with pytest.raises(InputError, match="not valid Unicode"):
        detector.screen(["caf\udce9"])

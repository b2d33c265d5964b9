"""What the page asks with is what the SDK would say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mnemoscope import Detector, InputError, embedded
from mnemoscope.explain.words import words_of
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk

MEMORISED = embedded.read_prompts("memorized")[0].prompt


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Desk(UiOptions()) as opened:
        yield opened


def test_it_measures_as_the_detector_does(desk: Desk) -> None:
    way = replace(desk.first, noises=1)
    found = desk.screen(MEMORISED, way)
    with Detector.load() as detector:
        [expected] = detector.screen([MEMORISED], noises=1)
        benign = detector.calibrated(noises=1)
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    assert benign is not None
    assert desk.benign(way) == tuple(sorted(benign.scores))
    assert desk.missing(way) is None
    assert desk.explain(MEMORISED, way, "occlusion").score == found.score


def test_edits_keep_words(desk: Desk) -> None:
    word = words_of(MEMORISED)[0]
    found = desk.edits(MEMORISED, replace(desk.first, noises=1), [word])
    assert found.found
    for edit in found.found:
        assert word in words_of(edit.prompt)
        assert edit.score <= found.target


def test_what_is_not_calibrated_has_scores_alone(desk: Desk) -> None:
    way = replace(desk.first, steps=2, noises=1)
    assert desk.screen("a cat", way).memorized is None
    assert desk.benign(way) == ()
    assert "There is no calibration" in str(desk.missing(way))


def test_what_there_is_to_choose_from(desk: Desk) -> None:
    assert desk.detectors[0] == "magnitude"
    assert "taps" in desk.detectors
    assert not {"tiled-l2", "bright-ending"} & set(desk.detectors)  # these draw, or need PyTorch
    assert desk.backends[0] == "onnxruntime"
    assert (desk.noises, desk.steps) == (4, 50)
    for name in ("taps", "sharpness"):
        assert desk.screen("a cat", replace(desk.first, detector=name, noises=1)).detector == name


def test_of_another_bundle_no_model_is_guessed() -> None:
    with Desk(UiOptions(bundle=embedded.BUNDLE, steps=10, noises=1)) as other:
        assert (other.first.steps, other.first.noises) == (10, 1)
        assert "--model" in str(other.why_no_gradient)
    with pytest.raises(InputError, match="steps"):
        Desk(UiOptions(steps=0))


@pytest.mark.parametrize(
    ("options", "words"), [({"port": 70000}, "65535"), ({"model": "a-model"}, "--bundle")]
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        UiOptions(**options)  # type: ignore[arg-type]

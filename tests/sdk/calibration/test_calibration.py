from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from calibrations import SETTING, again, made, scores_of
from hypothesis import given
from hypothesis import strategies as st

from mnemoscope import (
    Calibration,
    CalibrationError,
    First,
    Gate,
    InputError,
)
from mnemoscope.calibration import Carried
from mnemoscope.calibration.conformal import MARGIN, allowed_above, smallest_fpr
from mnemoscope.detectors import Fit

OWN = replace(SETTING, detector="mine")  # whose scores may be negative


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=20, max_size=60),
    st.floats(0.15, 0.6),
    st.floats(0.05, 0.4),
)
def test_the_threshold_is_the_lowest_that_keeps_the_promise(
    values: list[float], fpr: float, delta: float
) -> None:
    calibration = Calibration.of(OWN, scores_of(*values), fpr=fpr, delta=delta)
    above = allowed_above(len(values), fpr, delta)
    scores = np.array(values)
    assert (scores > calibration.threshold).sum() <= above
    limit = np.sort(scores)[::-1][above]
    assert limit <= calibration.threshold <= limit + MARGIN * abs(limit)


def test_settings_that_were_chosen_among_share_the_risk() -> None:
    values = np.random.default_rng(1).random(400)
    alone, shared, safer = (
        Calibration.of(SETTING, scores_of(*values), fpr=0.03, delta=delta, among=among)
        for delta, among in ((0.2, 1), (0.2, 8), (0.2 / 8, 1))
    )
    assert alone.threshold < shared.threshold == safer.threshold
    assert shared.smallest_fpr == safer.smallest_fpr == smallest_fpr(400, 0.2 / 8)


def test_tied_prompts_lie_on_the_threshold_not_above_it() -> None:
    calibration = Calibration.of(SETTING, scores_of(*[1.0] * 300, *[2.0] * 100))
    assert calibration.threshold == 2 * (1 + MARGIN)


def test_a_hair_goes_up_also_where_scores_are_negative() -> None:
    assert Calibration.of(OWN, scores_of(*[-2.0] * 400)).threshold == -2 * (1 - MARGIN)


def test_p_values() -> None:
    calibration = Calibration.of(SETTING, scores_of(*map(float, range(399, -1, -1))))
    np.testing.assert_allclose(calibration.p_values([1e9, 399, 398.5, -1]) * 401, [1, 2, 2, 401])
    scores = [1e9, 399.0, 398.5, 7.0, -1.0]
    assert [calibration.p_value(each) for each in scores] == calibration.p_values(scores).tolist()


def test_true_positives_come_with_an_exact_interval() -> None:
    rate, low, high = made().tpr() or (0, 0, 0)
    assert rate == 2 / 3
    assert (round(low, 4), round(high, 4)) == (0.0943, 0.9916)
    assert replace(made(), positives=()).tpr() is None
    on_it = replace(made(), positives=(made().threshold,)).tpr()
    assert on_it is not None
    assert on_it[0] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        Calibration.of(SETTING, scores_of(*[1.0] * 400, bad))
    with pytest.raises(InputError, match="NaN or infinity"):
        Calibration.of(SETTING, scores_of(*[1.0] * 400), positives=[bad])


def test_merging_pools_prompts_and_counts_shared_ones_once() -> None:
    both = made(count=400).merged(made(count=300, first=300))
    whole = made(count=600)
    assert dict(zip(both.prompts, both.scores, strict=True)) == dict(
        zip(whole.prompts, whole.scores, strict=True)
    )
    assert both.threshold == pytest.approx(whole.threshold)
    assert both.positives == made().positives  # those of both are the same
    other = replace(made(first=300), positives=(2.0, 0.7))
    assert sorted(made().merged(other).positives) == [0.1, 0.7, 2.0, 3.0]
    assert made().merged(made()) == made()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": replace(SETTING, steps=10)}, "cannot become one"),
        ({"fit": Fit(((0.0,),), ((1.0,),), (1.0,))}, "cannot become one"),
        ({"fpr": 0.02}, "same --fpr"),
        ({"delta": 0.1}, "same --fpr"),
        ({"carried": Carried("openvino", 10, 0.0)}, "was carried over from another backend"),
        ({"named_by": "tokens"}, "by their text, as earlier versions did"),
        ({"among": 3}, r"chosen among 1 setting, the other among 3"),
        ({"scores": (5.0, *made(count=500).scores[1:])}, "not measured in the same way"),
    ],
)
def test_what_cannot_be_merged(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        made(count=500).merged(again(made(count=500), **change))


@pytest.mark.parametrize(
    ("score", "other", "alike"),
    [
        (2.0, 2.0 * (1 + 9.9 * MARGIN), True),
        (2.0, 2.0 * (1 + 10.1 * MARGIN), False),
        (0.0, 0.9e-6, True),
        (0.0, 1.1e-6, False),
    ],
)
def test_how_much_one_prompt_may_score_otherwise(score: float, other: float, alike: bool) -> None:
    mine, theirs = (again(made(), scores=(each, *made().scores[1:])) for each in (score, other))
    if alike:
        assert dict.fromkeys(mine.merged(theirs).scores) == dict.fromkeys(mine.scores)
    else:
        with pytest.raises(CalibrationError, match="not measured in the same way"):
            mine.merged(theirs)


def gated(floor: float, level: float = 2.0, **changes: Any) -> Calibration:
    """The same after a first stage, whose scores are never negative."""
    return again(
        made(), setting=replace(SETTING, first=First()), gate=Gate(level, floor), **changes
    )


SOME = made().scores[7]
TAUGHT = Fit(((0.5, 1.0),), ((1.0, 2.0),), (1.0, -0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1e9}, r"a threshold of 1e\+09, and its scores set 0\.99"),
        ({"threshold": np.nextafter(made().threshold, 2)}, "a threshold of"),
        ({"scores": ()}, "no usable scores"),
        ({"scores": made().scores[1:]}, "no usable scores"),
        ({"prompts": (*made().prompts[1:], made().prompts[1])}, "counts a prompt twice"),
        ({"scores": (math.nan, *made().scores[1:])}, "NaN or infinite"),
        ({"positives": (math.inf,)}, "NaN or infinite"),
        ({"scores": (-1e-9, *made().scores[1:])}, "scores below 0, which no prompt has"),
        ({"positives": (-0.1,)}, "scores below 0"),
        ({"fpr": 0.001}, r"400 benign prompts cannot promise.* or more\."),
        ({"fpr": 0.0}, "no usable threshold: Rates"),
        ({"fpr": math.nan}, "no usable threshold: Rates"),
        ({"fpr": 1e-320}, "more prompts than there are"),
        ({"delta": 1.0}, "no usable threshold: Rates"),
        ({"among": 0}, "chosen among 0"),
        ({"among": 10**400}, "chosen among 1000"),
        ({"among": 1000}, "cannot promise"),
        ({"gate": Gate(0.0, SOME)}, "half a cascade"),
        ({"setting": replace(SETTING, first=First())}, "half a cascade"),
        ({"fit": TAUGHT, "setting": replace(SETTING, steps=2)}, "learned at fewer steps"),
        ({"carried": Carried("onnxruntime", 10, 0.0)}, "cannot have been carried over"),
        ({"carried": Carried("openvino", 0, 0.0)}, "cannot have been carried over"),
        ({"carried": Carried("openvino", 9, math.nan)}, "cannot have been carried over"),
        ({"carried": Carried("openvino", 9, -0.1)}, "cannot have been carried over"),
        ({"carried": Carried("openvino", 9, 1e-4)}, "cannot have been carried over"),
    ],
)
def test_what_is_no_calibration(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CalibrationError, match=rf"{words}.*Calibrate the bundle again"):
        replace(made(), **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gate": Gate(2.0, 0.123)}, "a gate that is of other scores"),
        ({"gate": Gate(math.nan, SOME)}, "a gate that is of other scores"),
        ({"gate": Gate(2.0, max(made().scores))}, "flags what the first stage clears"),
        ({"gate": Gate(0.01, SOME)}, r"has scores below 0\.\d+, which no prompt has"),
        ({"carried": Carried("openvino", 9, 0.0)}, "cannot have been carried over"),
    ],
)
def test_what_is_no_cascade(change: dict[str, Any], words: str) -> None:
    cascade = gated(SOME, fpr=0.05)
    with pytest.raises(CalibrationError, match=words):
        replace(cascade, **change)


@pytest.mark.parametrize(
    "parts",
    [
        ((), (), ()),
        (((0.5,),), ((1.0, 2.0),), (1.0, 2.0)),
        (((0.5,),), ((1.0,), (1.0,)), (1.0,)),
        (((0.5,),), ((1.0,),), (1.0, 1.0)),
        (((0.5,),), ((0.0,),), (1.0,)),
    ],
)
def test_what_no_detector_learned(parts: Any) -> None:
    with pytest.raises(CalibrationError, match="does not fit together"):
        Fit(*parts)
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        Fit(((0.5,),), ((1.0,),), (math.nan,))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 3), (1, 1, 2, 2)])
def test_what_was_learned_of_other_features(shape: tuple[int, ...]) -> None:
    """One feature would be compared with each of several, and one step with every step."""
    with pytest.raises(CalibrationError, match=r"is of 2 features at 1 step, and"):
        TAUGHT.standardized(np.zeros(shape))


def test_one_prompt_is_enough_to_compare_backends_on() -> None:
    assert replace(made(), carried=Carried("openvino", 1, 0.0)).carried is not None


def test_no_score_of_what_was_carried_is_nearer_than_ten_times_the_error() -> None:
    calibration = made()
    tenth = calibration.nearest / 10
    for error, fits in ((0.0, True), (0.99 * tenth, True), (tenth, False), (-1e-9, False)):
        assert Carried("openvino", 5, error).fits(calibration) is fits


def test_what_is_printed_of_one_is_short() -> None:
    assert len(repr(made())) < 500

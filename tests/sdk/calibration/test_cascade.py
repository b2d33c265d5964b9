from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from mnemoscope import Calibration, First, Gate, InputError, Setting
from mnemoscope.calibration.cascade import level

REPETITIONS = 400
SETTING = Setting("b" * 64, "onnxruntime", "taps", 10, 4, First("taps"))
Scores = NDArray[np.float64]
finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=40), finite, st.data())
def test_cleared_prompts_rank_below_all_others_which_rank_by_the_second_stage(
    pairs: list[tuple[float, float]], limit: float, data: st.DataObject
) -> None:
    first, second = map(np.array, zip(*pairs, strict=True))
    passed = first > limit
    floor = data.draw(finite)
    joint = Gate(limit, floor).joint(first, second[passed])
    assert np.isfinite(joint).all()
    assert (joint[~passed] <= floor).all()
    np.testing.assert_array_equal(joint[passed], np.maximum(second[passed], floor))
    order = np.argsort(first[~passed], kind="stable")
    assert (np.diff(joint[~passed][order]) >= 0).all()


def test_a_score_at_the_level_is_cleared() -> None:
    joint = Gate(-1.0, -5.0).joint(np.array([-1.0, -3.0, -0.5]), np.array([-4.0]))
    np.testing.assert_array_equal(joint, [-5.0, -7.0, -4.0])


@given(st.lists(finite, min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_the_level_clears_the_share(scores: list[float], clear: float) -> None:
    found = np.array(scores)
    assert (found <= level(found, clear)).sum() >= math.ceil(clear * len(found))
    distinct = np.arange(float(len(found)))
    assert (distinct <= level(distinct, clear)).sum() == math.ceil(clear * len(found))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clear": 0.0}, "--clear 0.0 does not"),
        ({"clear": 1.0}, "between 0 and 1"),
        ({"clear": math.nan}, "between 0 and 1"),
        ({"clear": "most"}, "not a number"),
        ({"steps": 1.5}, "first_steps is 1.5"),
        ({"noises": True}, "first_noises is True"),
        ({"detector": None}, "not text"),
    ],
)
def test_first_stages_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        First(**options)


# the promise


def population(ties: bool) -> tuple[Scores, Scores]:
    """First and second scores of all benign prompts there are: correlated, some of them < 0."""
    rng = np.random.default_rng(11)
    shared = rng.normal(size=20_000)
    both = shared + rng.normal(size=20_000), shared + rng.standard_t(3, size=20_000)
    return tuple(np.round(2 * each) / 2 if ties else each for each in both)  # type: ignore[return-value]


def calibrated(
    first: Scores, second: Scores, rng: np.random.Generator, count: int, **promise: float
) -> Calibration:
    """As `calibrate` does: one half of the prompts sets the level, the other the threshold."""
    rows = rng.integers(len(first), size=count)
    taught, judged = rows[::2], rows[1::2]
    bar = level(first[taught], 0.8)
    passed = judged[first[judged] > bar]
    gate = Gate(bar, float(second[passed].min()))
    joint = gate.joint(first[judged], second[passed])
    named = {str(i): score for i, score in enumerate(joint.tolist())}
    return Calibration.of(SETTING, named, gate=gate, **promise)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("count", "fpr", "delta"), [(600, 0.02, 0.1), (200, 0.05, 0.2)])
def test_the_joint_rate_keeps_the_promise(ties: bool, count: int, fpr: float, delta: float) -> None:
    first, second = population(ties)
    rng = np.random.default_rng(12)
    broken = 0
    for _ in range(REPETITIONS):
        calibration = calibrated(first, second, rng, count, fpr=fpr, delta=delta)
        assert calibration.gate is not None
        passed = first > calibration.gate.level
        joint = calibration.gate.joint(first, second[passed])
        flagged = joint > calibration.threshold
        assert not (flagged & ~passed).any()
        broken += flagged.mean() > fpr
    assert broken <= stats.binom.ppf(0.9999, REPETITIONS, delta)
    if not ties:  # and the threshold is no higher than it has to be
        assert broken >= stats.binom.ppf(1e-4, REPETITIONS, delta / 3)


@pytest.mark.parametrize("ties", [False, True])
def test_joint_p_values_are_valid(ties: bool) -> None:
    first, second = population(ties)
    rng = np.random.default_rng(13)
    for fraction in (0.01, 0.05, 0.3):
        shares = []
        for _ in range(100):
            calibration = calibrated(first, second, rng, 200, fpr=0.02, delta=0.5)
            assert calibration.gate is not None
            joint = calibration.gate.joint(first, second[first > calibration.gate.level])
            shares.append((calibration.p_values(joint) <= fraction).mean())
        error = np.std(shares) / math.sqrt(len(shares))
        assert np.mean(shares) <= fraction + 4 * error
        if not ties:
            assert np.mean(shares) >= fraction - 0.011 - 4 * error  # one in 101

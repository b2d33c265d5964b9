from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.calibration.conformal import (
    MARGIN,
    allowed_above,
    just_above,
    lowest_threshold,
    needed,
    p_values,
    proportion_interval,
    rejected,
    smallest_fpr,
)
from mnemoscope_export import Tolerance

REPETITIONS = 1000


def test_a_p_value_counts_benign_prompts_that_score_as_high_and_the_prompt_itself() -> None:
    benign = np.array([1.0, 2.0, 2.0, 3.0])
    scores = np.array([0.0, 1.0, 2.0, 2.5, 3.0, 9.0])
    expected = np.array([5, 5, 4, 2, 2, 1]) / 5
    np.testing.assert_array_equal(p_values(scores, benign), expected)


def test_without_benign_scores_everything_is_possible() -> None:
    np.testing.assert_array_equal(p_values(np.array([3.0]), np.empty(0)), [1.0])


@pytest.mark.parametrize("draw", ["continuous", "ties"])
def test_p_values_of_exchangeable_prompts_are_valid(draw: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(REPETITIONS, 51))
    if draw == "ties":
        scores = np.round(scores)
    found = [p_values(row[:1], np.sort(row[1:]))[0] for row in scores]
    for level in (0.05, 0.1, 0.5):
        below = np.mean(np.array(found) <= level)
        # the share is Binomial(1000, <= level) / 1000: four standard deviations
        assert below <= level + 4 * math.sqrt(level * (1 - level) / REPETITIONS)
    if draw == "continuous":  # and not needlessly careful
        assert np.mean(np.array(found) <= 0.5) > 0.4


@pytest.mark.parametrize(("count", "fpr", "delta"), [(299, 0.01, 0.05), (500, 0.02, 0.1)])
@pytest.mark.parametrize("draw", ["continuous", "ties"])
def test_the_threshold_keeps_its_promise(count: int, fpr: float, delta: float, draw: str) -> None:
    rng = np.random.default_rng(1)
    above = allowed_above(count, fpr, delta)
    broken = 0
    for _ in range(REPETITIONS):
        benign = rng.normal(size=count)
        if draw == "ties":
            threshold = np.sort(np.round(benign, 1))[count - 1 - above]
            realised = stats.norm.sf(threshold + 0.05)  # rounded scores strictly above it
        else:
            realised = stats.norm.sf(np.sort(benign)[count - 1 - above])
        broken += realised > fpr
    assert broken <= stats.binom.ppf(0.9999, REPETITIONS, delta)
    if draw == "continuous":  # and it is no lower than it has to be
        assert broken >= stats.binom.ppf(1e-4, REPETITIONS, delta / 3)


@given(st.integers(1, 5000), st.floats(0.001, 0.5), st.floats(0.01, 0.5))
def test_as_many_may_lie_above_as_the_promise_allows(count: int, fpr: float, delta: float) -> None:
    if count < needed(fpr, delta):
        with pytest.raises(InputError, match="cannot promise"):
            allowed_above(count, fpr, delta)
        return
    above = allowed_above(count, fpr, delta)
    found, more = stats.binom.cdf([above, above + 1], count, fpr)
    assert found <= delta * (1 + 1e-8)  # both round
    assert delta < more * (1 + 1e-8)


def test_all_but_the_lowest_may_lie_above() -> None:
    assert allowed_above(3, 0.5, 0.87) == 1  # 7 in 8 that two heads or fewer come up
    assert allowed_above(3, 0.5, 0.88) == 2


def test_the_lowest_threshold_is_a_score_and_a_hair() -> None:
    scores = [3.0, -1.0, 2.0]
    assert lowest_threshold(scores, 0.5, 0.2) == just_above(3.0)
    assert lowest_threshold(scores, 0.5, 0.5) == just_above(2.0)
    assert lowest_threshold(scores, 0.5, 0.9) == just_above(-1.0)


def test_the_least_rate() -> None:
    with pytest.raises(InputError, match="takes 2,995,732,273"):
        allowed_above(1000, 1e-9, 0.05)
    for fpr in (0.999e-9, 5e-324):
        with pytest.raises(InputError, match="more prompts than there are"):
            allowed_above(1000, fpr, 0.05)


@pytest.mark.parametrize("count", [1, 3, 291, 4999])
def test_where_the_chance_is_exactly_as_large_rounding_does_not_decide(count: int) -> None:
    """Of an odd number of fair coins, half or fewer come up heads with a probability of .5."""
    assert allowed_above(count, 0.5, 0.5) == count // 2
    assert allowed_above(count, 0.5, 0.5 * (1 - 1e-12)) == count // 2
    assert allowed_above(count, 0.5, 0.5 * (1 + 1e-12)) == count // 2


@pytest.mark.parametrize(
    ("fpr", "delta", "count"), [(0.001, 0.05, 2995), (0.01, 0.05, 299), (0.5, 0.25, 2)]
)
def test_the_fewest_prompts_for_a_promise(fpr: float, delta: float, count: int) -> None:
    assert needed(fpr, delta) == count
    assert allowed_above(count, fpr, delta) == 0
    assert smallest_fpr(count, delta) <= fpr < smallest_fpr(count - 1, delta)


@pytest.mark.parametrize("fpr", [0.5, 0.1, 0.01])
def test_the_fewest_prompts_where_they_promise_it_exactly(fpr: float) -> None:
    for count in range(1, 200):  # log(delta) / log(1 - fpr) is `count`, but for rounding
        assert needed(fpr, math.pow(1 - fpr, count)) == count


def test_the_hair_above_a_score_is_what_engines_may_differ_by() -> None:
    assert Tolerance().magnitude == MARGIN
    assert just_above(2.0) == 2 * (1 + MARGIN)
    assert just_above(-2.0) == -2 * (1 - MARGIN)


def test_too_few_prompts_says_how_many_it_takes_and_what_these_can_promise() -> None:
    with pytest.raises(InputError, match=r"^200 benign.* takes 2,995.*an fpr of 0\.0149 or more"):
        allowed_above(200, 0.001, 0.05)
    allowed_above(200, 0.0149, 0.05)
    with pytest.raises(InputError, match=r"^0 benign.* an fpr of 1\.0000 or more"):
        allowed_above(0, 0.01, 0.05)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 2.0, math.nan, math.inf])
def test_rates_that_are_none(bad: float) -> None:
    for fpr, delta in ((bad, 0.05), (0.01, bad)):
        with pytest.raises(InputError, match="between 0 and 1"):
            allowed_above(1000, fpr, delta)
    with pytest.raises(InputError, match="between 0 and 1"):
        rejected(np.array([0.5]), bad)


def test_an_interval_of_a_proportion() -> None:
    low, high = proportion_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4439, 0.9748)  # Clopper and Pearson's table
    assert proportion_interval(0, 5)[0] == 0
    assert proportion_interval(5, 5)[1] == 1


def test_benjamini_and_hochberg_by_hand() -> None:
    # their example of 1995: at 0.05 the four smallest of fifteen
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262]
    p += [0.5719, 0.6528, 0.759, 1.0]
    assert rejected(np.array(p), 0.05).nonzero()[0].tolist() == [0, 1, 2, 3]
    assert rejected(np.array(p), 0.05, dependent=True).sum() == 3
    assert rejected(np.array([]), 0.05).shape == (0,)
    assert rejected(np.array([0.05]), 0.05).all()
    with pytest.raises(InputError, match="NaN"):
        rejected(np.array([0.1, math.nan]), 0.05)


def test_the_false_discovery_rate_is_kept_with_shared_benign_scores() -> None:
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(REPETITIONS):
        benign = np.sort(rng.normal(size=400))
        scores = np.concatenate([rng.normal(size=90), rng.normal(4, 1, size=10)])
        flagged = rejected(p_values(scores, benign), 0.2)
        shares.append(flagged[:90].sum() / max(1, flagged.sum()))
    assert np.mean(shares) <= 0.2 + 4 * np.std(shares) / math.sqrt(REPETITIONS)
    assert np.mean(shares) > 0.1  # it does flag


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(
        BackendUnavailable, match=r"pip install -c constraints.txt '\.\[calibrate\]'"
    ):
        proportion_interval(1, 2)
    assert allowed_above(1000, 0.01, 0.05) == 4  # what reads calibrations, and screens, needs none
    assert p_values(np.array([1.0]), np.array([0.0])) == [0.5]

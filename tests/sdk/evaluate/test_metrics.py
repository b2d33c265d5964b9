from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from mnemoscope import InputError
from mnemoscope.evaluate import (
    auc,
    balanced_accuracy,
    bootstrap,
    tpr_at_fpr,
    tpr_nearest_fpr,
)

Scores = NDArray[np.float64]
Statistic = Callable[[Scores, Scores], object]

# few distinct values, so that there are many ties
tied = st.lists(st.integers(0, 9), min_size=1, max_size=120).map(lambda x: np.array(x, np.float64))
spread = st.lists(st.floats(0, 1e6), min_size=1, max_size=120).map(
    lambda x: np.array(x, np.float64)
)
scores = st.one_of(tied, spread)
rates = st.one_of(st.floats(0.001, 1), st.integers(1, 100).map(lambda percent: percent / 100))


def labelled(positives: Scores, negatives: Scores) -> tuple[Scores, Scores]:
    labels = np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
    return labels, np.r_[positives, negatives]


def normal(shift: float, count: int, seed: int) -> Scores:
    return np.random.default_rng(seed).normal(shift, 1, count)


@given(scores, scores)
def test_auc_is_scikit_learns(positives: Scores, negatives: Scores) -> None:
    expected = roc_auc_score(*labelled(positives, negatives))
    assert auc(positives, negatives) == pytest.approx(expected, abs=1e-12)


@given(scores, scores, rates)
@example(np.arange(100.0), np.arange(100.0), 0.07)  # 0.07 * 100 is a little more than 7
@example(np.arange(100.0), np.arange(100.0), 0.29)  # 0.29 * 100 is a little less than 29
@example(np.arange(10.0), np.arange(10.0), 1.0)
def test_tpr_is_scikit_learns_strictly_below_the_rate(
    positives: Scores, negatives: Scores, rate: float
) -> None:
    fpr, tpr, _ = roc_curve(*labelled(positives, negatives), drop_intermediate=False)
    assert tpr_at_fpr(positives, negatives, rate) == pytest.approx(tpr[fpr < rate].max())


@given(scores, scores, rates)
@example(np.array([1.0]), np.array([0.0, 0, 1, 1, 2, 2]), 0.5)  # 1/3 and 2/3 are equally close
def test_the_nearest_tpr_is_that_of_scikit_learns_closest_point(
    positives: Scores, negatives: Scores, rate: float
) -> None:
    fpr, tpr, _ = roc_curve(*labelled(positives, negatives), drop_intermediate=False)
    distance = np.abs(fpr - rate)
    closest = fpr[np.isclose(distance, distance.min(), rtol=0, atol=1e-12)].min()
    expected = tpr[fpr == closest].max()
    assert tpr_nearest_fpr(positives, negatives, rate) == pytest.approx(expected)


@given(scores, scores)
def test_accuracy_is_that_of_scikit_learns_curve(positives: Scores, negatives: Scores) -> None:
    fpr, tpr, _ = roc_curve(*labelled(positives, negatives))
    expected = np.max(1 - (fpr + (1 - tpr)) / 2)  # as Wen et al. write it
    assert balanced_accuracy(positives, negatives) == pytest.approx(expected)


@given(scores, scores)
def test_accuracy_is_never_below_a_coin(positives: Scores, negatives: Scores) -> None:
    assert 0.5 <= balanced_accuracy(positives, negatives) <= 1


@pytest.mark.parametrize("seed", [0, 1])
def test_both_are_scikit_learns_on_many_scores(seed: int) -> None:
    positives, negatives = normal(1, 2000, seed), normal(0, 3000, seed + 100)
    fpr, tpr, _ = roc_curve(*labelled(positives, negatives), drop_intermediate=False)
    assert auc(positives, negatives) == pytest.approx(
        roc_auc_score(*labelled(positives, negatives)), abs=1e-12
    )
    assert tpr_at_fpr(positives, negatives) == pytest.approx(tpr[fpr < 0.01].max())


def test_one_percent_of_a_hundred_allows_none() -> None:
    negatives = np.arange(100.0)
    positives = np.array([98.5, 99.0, 99.5, 100.0])
    assert tpr_at_fpr(positives, negatives, 0.01) == 0.5  # above 99, the largest
    assert tpr_at_fpr(positives, negatives, 0.011) == 1.0  # one may be above


def test_where_the_two_conventions_part() -> None:
    """A hundred negatives: strictly below 1 % is none above, closest to 1 % is one."""
    negatives = np.arange(100.0)
    positives = np.array([97.5, 98.5, 99.5, 100.0])
    assert tpr_at_fpr(positives, negatives) == 0.5
    assert tpr_nearest_fpr(positives, negatives) == 0.75
    assert balanced_accuracy(positives, negatives) == pytest.approx((1 + 1 - 0.02) / 2)


def test_the_nearest_of_two_rates_equally_close_is_the_lower() -> None:
    negatives, positives = np.arange(50.0), np.array([48.5, 49.5])  # 0 or 2 %
    assert tpr_nearest_fpr(positives, negatives) == 0.5


def test_perfect_separation() -> None:
    low, high = np.arange(50.0), np.arange(50.0) + 100
    assert tpr_nearest_fpr(high, low) == balanced_accuracy(high, low) == 1.0
    assert balanced_accuracy(low, high) == 0.5
    assert auc(high, low) == 1.0
    assert auc(low, high) == 0.0
    assert tpr_at_fpr(high, low) == 1.0
    assert tpr_at_fpr(low, high) == 0.0


def test_scores_that_say_nothing() -> None:
    same = np.full(40, 3.0)
    assert auc(same, same) == 0.5
    assert tpr_at_fpr(same, same) == 0.0  # all at once, or none
    assert auc(normal(0, 4000, 1), normal(0, 4000, 2)) == pytest.approx(0.5, abs=0.03)


@given(scores, scores)
def test_swapping_the_classes_mirrors_auc(positives: Scores, negatives: Scores) -> None:
    there, back = auc(positives, negatives), auc(negatives, positives)
    assert there + back == pytest.approx(1, abs=1e-12)


@given(scores, scores, rates, rates)
def test_a_larger_rate_never_finds_fewer(
    positives: Scores, negatives: Scores, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert tpr_at_fpr(positives, negatives, low) <= tpr_at_fpr(positives, negatives, high)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    for statistic in (tpr_at_fpr, tpr_nearest_fpr):
        with pytest.raises(InputError, match="between 0 and 1"):
            statistic(np.ones(3), np.zeros(3), rate)


@pytest.mark.parametrize(
    "statistic",
    [auc, tpr_at_fpr, tpr_nearest_fpr, balanced_accuracy, lambda p, n: bootstrap(auc, p, n)],
)
@pytest.mark.parametrize(("positives", "negatives"), [(0, 3), (3, 0), (0, 0)])
def test_one_kind_of_prompts_is_missing(
    statistic: Statistic, positives: int, negatives: int
) -> None:
    with pytest.raises(InputError, match=f"{positives} memorised and {negatives} other"):
        statistic(np.ones(positives), np.zeros(negatives))

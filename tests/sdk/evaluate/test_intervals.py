from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mnemoscope.evaluate import Interval, auc, bootstrap, mean_interval, tpr_at_fpr

Scores = NDArray[np.float64]
Statistic = Callable[[Scores, Scores], object]


def normal(shift: float, count: int, seed: int) -> Scores:
    return np.random.default_rng(seed).normal(shift, 1, count)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = normal(1, 300, 0)
    found = mean_interval(values)
    again = stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((again.low, again.high), rel=1e-12)


def test_without_groups_the_bootstrap_is_scipys_but_for_chance() -> None:
    both = normal(1.5, 150, 1), normal(0, 250, 2)
    found = bootstrap(auc, *both, repetitions=4000)
    again = stats.bootstrap(
        both, auc, n_resamples=4000, vectorized=False, method="percentile", rng=0
    ).confidence_interval
    width = again.high - again.low  # an end of 4,000 resamples is known to 2 % of it or so
    assert (found.low, found.high) == pytest.approx((again.low, again.high), abs=width / 10)


def test_intervals_hold_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=200)
    found = mean_interval(values)
    assert found.low < found.value == values.mean() < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)


@pytest.mark.parametrize("statistic", [auc, tpr_at_fpr])
@pytest.mark.parametrize("seed", range(3))
def test_the_interval_contains_the_value(statistic: Statistic, seed: int) -> None:
    positives, negatives = normal(1.5, 150, seed), normal(0, 250, seed + 50)
    found = bootstrap(statistic, positives, negatives, repetitions=200)
    assert found.value == statistic(positives, negatives)
    assert found.low < found.value < found.high
    assert 0 <= found.low <= found.high <= 1


def test_the_bootstrap_is_reproducible() -> None:
    positives, negatives = normal(1, 60, 3), normal(0, 60, 4)
    found = [bootstrap(auc, positives, negatives, repetitions=100, seed=seed) for seed in (5, 5, 6)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_the_bootstrap_covers_what_it_promises() -> None:
    """The middle 95 % of the values, found here by another way."""
    positives, negatives = normal(1, 80, 8), normal(0, 80, 9)
    found = bootstrap(auc, positives, negatives, repetitions=2000)
    spread = auc(positives, negatives) * (1 - auc(positives, negatives))
    q1 = found.value / (2 - found.value)  # Hanley & McNeil 1982
    q2 = 2 * found.value**2 / (1 + found.value)
    variance = (spread + 79 * (q1 - found.value**2) + 79 * (q2 - found.value**2)) / 80**2
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.25)


@pytest.mark.parametrize("which", ["positives", "negatives"])
def test_the_bootstrap_resamples_both_kinds(which: str) -> None:
    varied, fixed = normal(0, 50, 1), np.array([0.0])
    pair = (varied, fixed) if which == "positives" else (fixed, varied)
    found = bootstrap(auc, *pair, repetitions=100)
    assert found.low < found.high


def test_groups_of_one_are_the_plain_bootstrap() -> None:
    positives, negatives = normal(1, 40, 1), normal(0, 70, 2)
    alone = (np.arange(40), np.arange(70))
    assert bootstrap(auc, positives, negatives, repetitions=50) == bootstrap(
        auc, positives, negatives, groups=alone, repetitions=50
    )


def test_duplicates_are_no_observations() -> None:
    """Everything ten times: the plain interval shrinks, that over groups stays."""
    positives, negatives = normal(1, 40, 1), normal(0, 40, 2)
    many = [np.repeat(each, 10) for each in (positives, negatives)]
    group = np.repeat(np.arange(40), 10)
    once = bootstrap(auc, positives, negatives)
    grouped = bootstrap(auc, *many, groups=(group, group))
    naive = bootstrap(auc, *many)
    assert grouped.value == pytest.approx(once.value)
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert grouped.high - grouped.low > 2 * (naive.high - naive.low)


def test_numbers_of_groups_may_have_gaps() -> None:
    positives, negatives = normal(1, 6, 1), normal(0, 6, 2)
    near = (np.array([0, 0, 1, 1, 2, 2]), np.arange(6))
    far = (np.array([7, 7, 900, 900, 11, 11]), np.arange(6) * 5)
    found = [bootstrap(auc, positives, negatives, groups=g, repetitions=200) for g in (near, far)]
    assert found[0].low < found[0].high
    assert found[0].value == found[1].value


def test_one_group_has_no_interval() -> None:
    positives, negatives = normal(1, 9, 1), normal(0, 9, 2)
    found = bootstrap(auc, positives, negatives, groups=(np.zeros(9, int), np.zeros(9, int)))
    assert found.low == found.high == found.value


def test_a_perfect_score_has_no_spread() -> None:
    assert bootstrap(auc, np.ones(9), np.zeros(9), repetitions=50) == Interval(1.0, 1.0, 1.0)


def test_an_interval_reads_well() -> None:
    assert str(Interval(0.98765, 0.9, 1.0)) == "0.988 [0.900, 1.000]"

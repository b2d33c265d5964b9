"""Totals, shares and recall of a list, against enumeration, SciPy and simulated lists."""

from __future__ import annotations

import sys
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.audit.confirming.estimates import Estimate, Part, recall, share, total


def tails(size: int, drawn: int, found: int, count: int) -> tuple[float, float]:
    """P(X >= found), P(X <= found) if `count` of `size` would be found, by counting samples."""
    ways = [
        comb(count, k) * comb(size - count, drawn - k) / comb(size, drawn) for k in range(drawn + 1)
    ]
    return sum(ways[found:]), sum(ways[: found + 1])


@pytest.mark.parametrize(("size", "drawn"), [(12, 5), (30, 10), (9, 8)])
def test_ends_are_those_of_enumeration(size: int, drawn: int) -> None:
    for found in range(drawn + 1):
        likely = [
            count
            for count in range(found, size - drawn + found + 1)
            if min(tails(size, drawn, found, count)) > 0.025
        ]
        expected = Estimate(size * found / drawn, likely[0], likely[-1])
        assert total([Part(size, drawn, found)]) == expected


@pytest.mark.parametrize("found", [0, 3, 50, 100])
def test_of_a_long_list_they_are_clopper_and_pearsons(found: int) -> None:
    size = 10_000_000
    estimate = share([Part(size, 100, found)])
    exact = binomtest(found, 100).proportion_ci(0.95)
    assert estimate is not None
    assert estimate.low == pytest.approx(exact.low, abs=1e-4)
    assert estimate.high == pytest.approx(exact.high, abs=1e-4)


def test_what_was_drawn_whole_is_certain() -> None:
    assert total([Part(86, 86, 82)]) == Estimate(82, 82, 82)
    assert share([Part(86, 86, 82)]) == Estimate(82 / 86, 82 / 86, 82 / 86)
    assert recall([Part(86, 86, 82)], [Part(10, 10, 2)]) == Estimate(*(82 / 84,) * 3)
    one = total([Part(50, 50, 40), Part(200, 100, 3)])
    other = total([Part(200, 100, 3)])
    assert (one.value, one.low, one.high) == (46, other.low + 40, other.high + 40)


def test_intervals_of_several_parts_hold_at_once() -> None:
    parts, whole = [Part(200, 40, 3), Part(300, 20, 10), Part(90, 30, 0)], Part(7, 7, 2)
    each = [total([part], 1 - 0.1 / 3) for part in parts]  # Bonferroni's, of those not drawn whole
    found = total([*parts, whole], 0.9)
    assert found.low == sum(one.low for one in each) + 2
    assert found.high == sum(one.high for one in each) + 2


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, float("nan")])
def test_levels_that_are_none(level: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        total([Part(10, 5, 1)], level)


def test_without_scipy_there_are_no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(BackendUnavailable, match=r"Intervals need SciPy: .*\[calibrate\]"):
        total([Part(10, 5, 1)])


def test_nothing_drawn_is_not_known() -> None:
    assert total([Part(10, 0, 0)]) == Estimate(None, 0, 10)
    assert total([]) == total([Part(0, 0, 0)]) == Estimate(0, 0, 0)
    assert share([Part(0, 0, 0)]) is None
    assert recall([Part(5, 5, 0)], [Part(9, 3, 0)]) is None
    found = recall([Part(5, 5, 2)], [Part(9, 0, 0)])
    assert found == Estimate(None, 2 / 11, 1)


def test_recall_by_hand() -> None:
    flagged, others = [Part(50, 50, 40), Part(100, 50, 10)], [Part(1000, 100, 2)]
    found = recall(flagged, others)
    # two parts are uncertain: each at 97.5 %
    hits, missed = total(flagged[1:], 0.975), total(others, 0.975)
    assert found is not None
    assert found.value == pytest.approx(60 / 80)
    assert found.low == pytest.approx((40 + hits.low) / (40 + hits.low + missed.high))
    assert found.high == pytest.approx((40 + hits.high) / (40 + hits.high + missed.low))


def test_intervals_hold_as_often_as_they_say() -> None:
    dice = np.random.default_rng(0)
    held = {"share": 0, "recall": 0}
    for _ in range(300):
        flagged, others = dice.random(150) < 0.6, dice.random(600) < 0.02
        top, rest = flagged[:40], flagged[40:]
        parts = [
            Part(len(each), n, int(dice.choice(each, n, replace=False).sum()))
            for each, n in ((top, 40), (rest, 30), (others, 60))
        ]
        truth = flagged.mean(), flagged.sum() / (flagged.sum() + others.sum())
        for name, found, true in zip(
            held, (share(parts[:2]), recall(parts[:2], parts[2:])), truth, strict=True
        ):
            assert found is not None
            held[name] += found.low <= true <= found.high
    assert held["share"] >= 0.95 * 300 - 2 * np.sqrt(300 * 0.95 * 0.05)
    assert held["recall"] >= 0.95 * 300 - 2 * np.sqrt(300 * 0.95 * 0.05)


@pytest.mark.parametrize("numbers", [(1, 2, 0), (2, 1, 2), (2, 1, -1)])
def test_numbers_that_do_not_fit(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="does not fit"):
        Part(*numbers)
    with pytest.raises(InputError, match="A level lies between"):
        total([Part(2, 1, 1)], 1)

"""What drawings say of a caption."""

from __future__ import annotations

import numpy as np
import pytest

from mnemoscope.audit.confirming.findings import Finding, judge, usual

CONFIRMED, NEAR, NOT = Finding.confirmed, Finding.near_miss, Finding.not_confirmed


@pytest.mark.parametrize(
    ("own", "other", "level", "finding"),
    [
        ((0.1, 0.51), (0.0, 0.0), 0.3, CONFIRMED),  # one seed will do
        ((0.1, 0.51), (0.9, 0.9), 0.3, CONFIRMED),  # whatever else it is like
        ((0.5, 0.5), (0.75, 0.75), 0.6, NOT),  # above, and not at the threshold
        ((0.1, 0.1), (0.76, 0.0), 0.3, NEAR),  # the same as another picture
        ((0.31, 0.0), (0.0, 0.0), 0.3, NEAR),
        ((0.3, 0.3), (0.0, 0.0), 0.3, NOT),
        ((0.49, 0.0), (0.0, 0.0), None, NOT),
        ((0.49, 0.0), (0.8, 0.0), None, NEAR),
    ],
)
def test_findings(
    own: tuple[float, ...], other: tuple[float, ...], level: float | None, finding: Finding
) -> None:
    one, two = np.array([own], np.float32), np.array([other], np.float32)
    assert judge(one, two, 0.5, level, 0.75) == [finding]
    assert judge(one, two, None, level, 0.75) == [None]


def test_what_is_the_same_may_not_be_known() -> None:
    one, two = np.array([[0.1]], np.float32), np.array([[0.99]], np.float32)
    assert judge(one, two, 0.5, 0.3, None) == [NOT]


def test_no_captions() -> None:
    none = np.zeros((0, 4), np.float32)
    assert judge(none, none, 0.5, 0.3, 0.75) == []


def test_usual_is_the_99th_percentile() -> None:
    cosines = np.arange(101, dtype=np.float32)[::-1] / 100
    assert usual(cosines) == pytest.approx(0.99)
    assert usual(cosines[:100]) is not None
    assert usual(cosines[:99]) is None

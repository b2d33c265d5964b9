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
        ((0.5, 0.5), (0.5, 0.5), 0.6, NOT),  # above, and not at the threshold
        ((0.1, 0.1), (0.51, 0.0), 0.3, NEAR),  # a copy of another picture
        ((0.31, 0.0), (0.0, 0.0), 0.3, NEAR),
        ((0.3, 0.3), (0.0, 0.0), 0.3, NOT),
        ((0.49, 0.0), (0.0, 0.0), None, NOT),
        ((0.49, 0.0), (0.6, 0.0), None, NEAR),
    ],
)
def test_findings(
    own: tuple[float, ...], other: tuple[float, ...], level: float | None, finding: Finding
) -> None:
    one, two = np.array([own], np.float32), np.array([other], np.float32)
    assert judge(one, two, 0.5, level) == [finding]
    assert judge(one, two, None, level) == [None]


def test_no_captions() -> None:
    none = np.zeros((0, 4), np.float32)
    assert judge(none, none, 0.5, 0.3) == []


def test_usual_is_the_99th_percentile() -> None:
    cosines = np.arange(101, dtype=np.float32)[::-1] / 100
    assert usual(cosines) == pytest.approx(0.99)
    assert usual(cosines[:100]) is not None
    assert usual(cosines[:99]) is None

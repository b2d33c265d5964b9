"""Bars and gauges are where the scores are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibrations import made
from ui_support import CLEAN

from mnemoscope.ui.histogram import HEIGHT, WIDTH, bars, gauge, span


def test_the_gauge_has_everything_in_its_order() -> None:
    benign = np.linspace(0.2, 0.9, 101).tolist()
    found = gauge(replace(CLEAN, score=2.0, threshold=1.0, memorized=True), benign)
    assert found is not None
    begin, width = found.usual
    assert 0 < begin < begin + width < found.limit < found.needle < 100
    assert found.low == 0
    assert found.high == pytest.approx(2.1)
    assert found.needle == pytest.approx(100 * 2 / 2.1)
    assert begin == pytest.approx(100 * (0.2 + 0.7 * 0.05) / 2.1)


def test_scores_below_zero_have_a_place_too() -> None:
    found = gauge(replace(CLEAN, score=-3.0, threshold=-1.0), [-2.5, -2.0])
    assert found is not None
    assert found.needle == 0
    assert 0 < found.limit < 100


def test_without_a_verdict_there_is_no_gauge() -> None:
    assert gauge(replace(CLEAN, memorized=None, p_value=None, threshold=None), []) is None
    assert gauge(replace(CLEAN, memorized=None, p_value=None, empty=True), [0.1, 0.2]) is None


def test_bars_hold_every_score_once() -> None:
    calibration = made()
    low, high = span(calibration)
    assert low < min(calibration.scores)
    assert high > 3.0
    found, shares = bars(calibration.scores, low, high, 0.5)
    assert shares.sum() == pytest.approx(1)
    assert sum(bar.height for bar in found) == pytest.approx(HEIGHT / 0.5)
    for bar in found:
        assert bar.y + bar.height == pytest.approx(HEIGHT)
        assert 0 <= bar.x <= WIDTH - bar.width
        counted = [
            low + (high - low) * bar.x / WIDTH
            <= score
            < low + (high - low) * (bar.x + bar.width) / WIDTH
            for score in calibration.scores
        ]
        assert bar.height == pytest.approx(sum(counted) / 400 * HEIGHT / 0.5)


def test_equal_scores_have_room() -> None:
    low, high = span(replace(made(), positives=(3.0,)))
    assert low < high

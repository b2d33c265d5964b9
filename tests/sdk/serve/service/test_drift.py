"""Whether traffic still scores as what was calibrated on."""

from __future__ import annotations

import numpy as np
import pytest
from calibrations import made
from scipy import stats

from mnemoscope.serve.service.drift import WINDOW, Traffic
from mnemoscope_runtime.errors import BackendUnavailable

CALIBRATION = made()  # 400 scores between 0 and 1
RANDOM = np.random.default_rng(3)


def test_it_is_the_calibrations_own_test() -> None:
    traffic, scores = Traffic(), RANDOM.random(300)
    for k in range(0, 300, 3):
        traffic.add("a", CALIBRATION, scores[k : k + 3])
    found = traffic.tested()["a"]
    expected = stats.mannwhitneyu(scores, CALIBRATION.scores, alternative="greater").pvalue
    assert (found.recent, found.p_value) == (300, pytest.approx(expected))
    assert not found.drifted
    traffic.add("a", CALIBRATION, RANDOM.random(300) + 0.3)
    assert traffic.tested()["a"].drifted


def test_what_is_long_ago_is_forgotten() -> None:
    traffic = Traffic()
    traffic.add("a", CALIBRATION, RANDOM.random(WINDOW) + 0.5)
    assert traffic.tested()["a"].drifted
    traffic.add("a", CALIBRATION, RANDOM.random(WINDOW))
    assert traffic.tested()["a"].recent == WINDOW
    assert not traffic.tested()["a"].drifted


def test_models_and_calibrations_are_kept_apart() -> None:
    traffic = Traffic()
    traffic.add("a", CALIBRATION, RANDOM.random(50) + 1)
    traffic.add("b", CALIBRATION, RANDOM.random(50))
    assert [each.drifted for each in traffic.tested().values()] == [True, False]
    traffic.add("a", made(first=1), RANDOM.random(30))
    assert traffic.tested()["a"].recent == 30


def test_too_few_say_nothing() -> None:
    traffic = Traffic()
    traffic.add("a", CALIBRATION, RANDOM.random(19))
    assert traffic.tested() == {}


def test_without_scipy_there_is_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> None:
        raise BackendUnavailable("SciPy is not installed")

    traffic = Traffic()
    traffic.add("a", CALIBRATION, RANDOM.random(50))
    monkeypatch.setattr("mnemoscope.calibration.drift.statistics", lacking)
    assert traffic.tested() == {}

from __future__ import annotations

import numpy as np
import pytest
from calibrations import SETTING, made, scores_of

from mnemoscope import (
    Calibration,
    InputError,
)
from mnemoscope.calibration import Drift


def test_the_same_traffic_does_not_drift_and_higher_scores_do() -> None:
    rng = np.random.default_rng(3)
    calibration = made()
    assert not calibration.drift(rng.random(200).tolist()).drifted
    drift = calibration.drift((rng.random(200) + 0.2).tolist())
    assert drift.drifted
    assert (drift.recent, drift.level) == (200, 0.01)
    assert not calibration.drift((rng.random(200) - 0.2).tolist()).drifted  # one-sided
    assert calibration.drift([2.0] * 20).drifted  # as few as that
    assert not Drift(20, p_value=0.01, level=0.01).drifted


def test_drift_is_seldom_seen_where_there_is_none() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(300):
        values = rng.lognormal(size=350)
        calibration = Calibration.of(SETTING, scores_of(*values[:300]))
        alarms += calibration.drift(values[300:].tolist(), level=0.05).drifted
    assert alarms <= 30  # 15 are to be expected


def test_a_few_memorised_prompts_are_no_drift() -> None:
    rng = np.random.default_rng(5)
    assert not made().drift([*rng.random(200).tolist(), 9.0, 9.0, 9.0, 9.0]).drifted


@pytest.mark.parametrize(
    ("recent", "words"),
    [
        ([], "^0 recent scores cannot"),
        ([0.5] * 19, "^19 recent scores cannot"),
        ([*[0.5] * 19, float("nan")], "^20 recent scores, NaN among them, cannot"),
    ],
)
def test_recent_scores_that_tell_nothing(recent: list[float], words: str) -> None:
    with pytest.raises(InputError, match=f"{words}.*20 or more"):
        made().drift(recent)

"""What another threshold costs."""

from __future__ import annotations

import math

import pytest
from calibrations import made

from mnemoscope import Calibration, InputError
from mnemoscope.calibration.conformal import allowed_above, needed
from mnemoscope.calibration.moving import move


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return made()


def test_the_calibrated_threshold_costs_what_it_promises(calibration: Calibration) -> None:
    found = move(calibration, calibration.threshold)
    assert found.benign == 400
    assert found.benign_above == allowed_above(400, calibration.fpr, calibration.delta)
    assert 0 < found.fpr <= calibration.fpr
    assert (found.positives, found.positives_above) == (3, 2)
    assert found.tpr == calibration.tpr()


@pytest.mark.parametrize("above", [0, 1, 17, 399])
def test_the_rate_is_the_least_that_allows_as_many(calibration: Calibration, above: int) -> None:
    """`allowed_above` finds counts of rates by adding up a binomial; here it is the other way."""
    threshold = float(calibration.ordered[399 - above])
    found = move(calibration, threshold)
    assert found.benign_above == above
    assert allowed_above(400, found.fpr * (1 + 1e-6), calibration.delta) == above
    if above:
        assert allowed_above(400, found.fpr * (1 - 1e-6), calibration.delta) < above
    else:
        assert needed(found.fpr * (1 - 1e-6), calibration.delta) > 400


def test_below_all_scores_everything_is_flagged(calibration: Calibration) -> None:
    found = move(calibration, -1.0)
    assert (found.benign_above, found.fpr, found.positives_above) == (400, 1.0, 3)


def test_without_memorised_prompts_there_is_no_rate_of_them() -> None:
    setting, scores = made().setting, {f"{i:012x}": i / 300 for i in range(300)}
    assert move(Calibration.of(setting, scores), 0.5).tpr is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_threshold_that_is_none(calibration: Calibration, bad: float) -> None:
    with pytest.raises(InputError, match="is a number"):
        move(calibration, bad)

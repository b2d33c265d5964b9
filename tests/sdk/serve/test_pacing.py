from __future__ import annotations

import pytest

from mnemoscope.serve.pacing import Pace


class Clock:
    """Tells what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nobody_knows_before_something_was_done(clock: Clock) -> None:
    pace = Pace(1, clock)
    assert pace.left(7) is None
    pace.begin(0, 4)
    assert pace.left(7) is None
    clock.now += 2
    pace.end(0)
    assert pace.left(0) == 0
    assert pace.left(7) == pytest.approx(7 * 0.5)


def test_what_is_begun_counts_as_far_as_it_is_not_done(clock: Clock) -> None:
    pace = Pace(2, clock)
    pace.expect(1.0)
    pace.begin(0, 4)
    assert pace.left(0) == 0  # a lane is free
    assert pace.left(3) == pytest.approx(3)  # which takes these, until the other one is free too
    assert pace.left(6) == pytest.approx((4 + 6) / 2)
    pace.begin(1, 2)
    assert pace.left(0) == pytest.approx(2)
    assert pace.left(6) == pytest.approx((4 + 2 + 6) / 2)
    clock.now += 3
    assert pace.left(6) == pytest.approx((1 + 0 + 6) / 2)  # late is not less than nothing


def test_the_pace_follows_what_is_done(clock: Clock) -> None:
    pace = Pace(1, clock)
    pace.expect(1.0)
    for _ in range(30):
        pace.begin(0, 2)
        clock.now += 6
        pace.end(0)
    assert pace.left(1) == pytest.approx(3.0, rel=0.01)


def test_a_pace_that_is_no_second(clock: Clock) -> None:
    pace = Pace(1, clock)
    pace.expect(0.5)
    pace.begin(0, 4)
    assert pace.left(0) == pytest.approx(2)
    assert pace.left(3) == pytest.approx(2 + 1.5)


def test_one_batch_does_not_change_it_much(clock: Clock) -> None:
    pace = Pace(1, clock)
    pace.expect(1.0)
    pace.begin(0, 1)
    clock.now += 11
    pace.end(0)
    assert pace.left(1) == pytest.approx(1 + 10 / 5)


def test_how_many_are_begun(clock: Clock) -> None:
    pace = Pace(2, clock)
    assert pace.begun == 0
    pace.begin(0, 4)
    pace.begin(1, 2)
    assert pace.begun == 6
    pace.end(0)
    assert pace.begun == 2

from __future__ import annotations

import sys

import pytest

from mnemoscope_export.torch.frames import with_room

if sys.platform == "win32":
    pytest.skip("counts what Unix counts", allow_module_level=True)
import resource

CALLS = 2000


def leaf() -> None:
    pass


leaf.__code__ = leaf.__code__.replace(co_stacksize=200)  # larger than frames that call it


def faults_at(depth: int) -> int:
    """Pages that a loop of calls touches first, so many frames further down."""
    if depth:
        return faults_at(depth - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        leaf()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def worst() -> int:
    return max(faults_at(depth) for depth in range(300))


def test_no_loop_meets_a_border() -> None:
    assert worst() >= CALLS  # if Python no longer does that, `with_room` can go
    assert with_room(worst) < CALLS // 10


def test_it_is_the_call_itself() -> None:
    assert with_room(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        with_room(lambda: 1 // 0)

"""In this process, without Ray."""

from __future__ import annotations

import pickle
import platform
from functools import partial
from pathlib import Path

import pytest
import ray_support
from ray_support import NAN, WRONG

from mnemoscope import BackendUnavailable, InputError, MnemoscopeError, NumericsError
from mnemoscope.audit.ray_actor import Actor
from mnemoscope_runtime import __version__


def test_another_version_reads_nothing() -> None:
    actor = Actor()
    assert actor.do(1, [1], "number", 0) is None
    error = actor.begin("0.0.0", 1, b"not read")
    assert isinstance(error, BackendUnavailable)
    assert "has Mnemoscope " in str(error)
    assert actor.do(1, [1], "number", 0) is None


def test_a_worker_has_one_stage_open(tmp_path: Path) -> None:
    log: list[str] = []
    ray_support.LOGS[str(tmp_path)] = log
    opens = [pickle.dumps(partial(ray_support.logged, str(tmp_path), name)) for name in "ab"]
    actor = Actor()
    for stage, told in ((1, 0), (1, 0), (2, 1)):
        assert actor.begin(__version__, stage, opens[told]) is None
        assert actor.do(stage, [3], "number", 0) == [3]
    assert log == ["a opened", "a closed", "b opened"]
    assert actor.do(1, [3], "number", 0) is None


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (WRONG, InputError("It is wrong. (Counted from number 7.)")),
        (NAN, NumericsError("It is NaN. (Counted from number 7.)")),
    ],
)
def test_errors_are_returned(tmp_path: Path, item: int, error: MnemoscopeError) -> None:
    actor = Actor()
    assert actor.begin(__version__, 1, pickle.dumps(ray_support.squares(9, tmp_path).open)) is None
    found = actor.do(1, [2, item], "number", 7)
    assert type(found) is type(error)
    assert str(found) == f"{error} (On the node {platform.node()}.)"
    assert actor.do(1, [2, 3], "number", 7) == [4, 9]


def test_what_is_not_there() -> None:
    actor = Actor()
    assert actor.begin(__version__, 1, b"cno_such_module\nnothing\n.") is None
    found = actor.do(1, [2], "number", 0)
    assert isinstance(found, BackendUnavailable)
    assert "cannot import what the audit needs: No module named 'no_such_module'" in str(found)

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemoscope import InputError

from .forks import Outcome, run
from .judging import Changed, known, passes
from .mutators import changed
from .targets import TARGETS, Target

ENGINES = ("onnxruntime", "openvino")
OPENED = ("manifest", "noise-bank", "empty-embeds")  # a whole bundle for each file: slow


@pytest.mark.parametrize("name", [each for each in TARGETS if each not in ENGINES])
def test_changed_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "cache"))
    target = TARGETS[name](tmp_path)
    seeds = known(target)
    assert all(passes(target, seeds, each) for each in target.seeds)

    count = 25 if name in OPENED else 100

    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @given(st.randoms(use_true_random=True), st.sampled_from(range(len(seeds))))
    def read(dice: Random, which: int) -> None:
        passes(target, seeds, changed(target.seeds[which], dice, target.mutators))

    read()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_changed_graphs_on_every_backend(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    seeds, dice = known(target), Random(0)
    for _ in range(20):
        passes(target, seeds, changed(target.seeds[0], dice, target.mutators))


def test_what_is_a_finding() -> None:
    def read(content: bytes) -> bytes:
        if content == b"refused":
            raise InputError("no")
        if content == b"worse":
            raise KeyError("no")
        return content[:4]

    target = Target((b"seed",), read)
    assert passes(target, known(target), b"seeds")
    assert not passes(target, known(target), b"refused")
    with pytest.raises(Changed, match="weed"):
        passes(target, known(target), b"weed")
    with pytest.raises(KeyError):
        passes(target, known(target), b"worse")


def leave() -> None:
    raise SystemExit(0)


FINDINGS: dict[str, tuple[Callable[[], object], str]] = {
    "a traceback": (lambda: [][0], "IndexError: list index out of range"),
    "an exit with status 0": (leave, "SystemExit: 0"),
    "an abort": (os.abort, "SIGABRT"),
    "a hang": (lambda: time.sleep(30), "SIGALRM"),
    "gigabytes": (lambda: bytearray(3 * 2**30), "MemoryError"),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and fork")
@pytest.mark.parametrize("name", FINDINGS)
def test_a_fork_ends_with_a_finding(name: str) -> None:
    do, said = FINDINGS[name]

    def read(number: int) -> bool:
        if number == 5:
            do()
        return number % 2 == 0

    assert run(lambda: read, range(5), 1) == Outcome(5, 3, None)
    found = run(lambda: read, range(2, 9), 1)
    assert found.tried == 4  # of 2, 3, 4, 5
    assert found.finding is not None
    assert said in found.finding


def test_every_change_can_be_repeated_and_changes() -> None:
    seed = b'{"a":[1,2,{"b":"text"}],"c":0.5}'
    mutators = TARGETS["calibration"](Path()).mutators
    twice = [[changed(seed, Random(k), mutators) for k in range(200)] for _ in range(2)]
    assert twice[0] == twice[1]
    assert sum(each != seed for each in twice[0]) > 180
    assert len(set(twice[0])) > 150

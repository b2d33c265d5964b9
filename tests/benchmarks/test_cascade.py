"""The plumbing of the benchmark of cascades, on the fake backend."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks import cascade
from mnemoscope import Detector, calibrate, embedded
from mnemoscope.detectors import find_statistic
from mnemoscope.screening.stages import Stage
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

pytestmark = pytest.mark.slow


def test_a_prompt_is_measured_once_in_a_setting() -> None:
    backend = FakeBackend()
    with Screener.open(embedded.BUNDLE, backend=backend) as screener:
        stage = Stage.of(screener, find_statistic("magnitude"), 1, 2)
        memory = cascade.Memory(Stage.measure)
        found = memory.of(stage, ["a", "b"])
        calls = backend.calls
        assert (memory.of(stage, ["b", "a", "b"]) == found[[1, 0, 1]]).all()
        assert backend.calls == calls
        assert (memory.of(stage, ["c", "a"])[1] == found[0]).all()
        memory.of(Stage.of(screener, find_statistic("magnitude"), 1, 1), ["a"])
        assert backend.calls == calls + 2


def test_without_taps_both_stages_are_the_magnitude() -> None:
    assert {(detector, steps) for detector, steps, *_ in cascade.plan(False)} == {
        ("magnitude", 1),
        ("magnitude", 10),
    }
    firsts = [first for *_, first in cascade.plan(True) if first is not None]
    assert len(firsts) == 4 * len(cascade.CLEARED)


def test_a_cascade_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cascade, "FULL", (("magnitude", 1, 4),))
    monkeypatch.setattr(cascade, "calibrate", partial(calibrate, fpr=0.2, delta=0.2))
    cascade.main(["--limit", "30", "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "cascade.json").read_bytes())
    full = next(row for row in rows if row["clear"] is None and "4 noise" in row["setting"])
    for row in rows:
        held = row["held_out"]
        if row["clear"] is not None:
            assert held["passes"] == pytest.approx(1 + 4 * (1 - held["cleared"]))
            assert row["benign"] == 15
    assert full["held_out"]["passes"] == 4
    with Detector.load() as detector:
        flops = Stage.of(detector.screener, detector.statistic, 1, 4).flops
    assert full["held_out"]["flops"] == flops

"""The plumbing of the benchmark of drift, on a few windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import drift

pytestmark = pytest.mark.slow


def test_alarms_are_of_what_scores_higher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "STREAM", 1500)
    drift.main(["--windows", "4", "--streams", "3", "--output", str(tmp_path)])
    report = json.loads((tmp_path / "drift.json").read_bytes())
    assert (report["shares"]["0.0"], report["shares"]["0.2"]) == (0, 1)
    assert report["factors"]["1.2"]["alarms"] == 1
    assert report["false"]["lasting"] <= report["false"]["ever"] <= 3
    assert "20% memorised" in capsys.readouterr().out

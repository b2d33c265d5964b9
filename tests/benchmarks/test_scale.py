"""The plumbing of the benchmark of long audits, on a short one; Ray has tests of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scale

pytestmark = pytest.mark.slow


def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LISTS", (300, 600, 10**9))
    for limit, code in ((1e12, 0), (1e6, 1)):  # whatever this process holds by now
        monkeypatch.setattr(scale, "LIMIT", limit)
        monkeypatch.setattr(scale, "alone", lambda work, *args: work(*args))
        with pytest.raises(SystemExit) as caught:
            scale.main(["list", "--longest", "600", "--output", str(tmp_path)])
        assert caught.value.code == code
    rows = json.loads((tmp_path / "embedded-scale.json").read_text())["list"]
    assert [row["captions"] for row in rows] == [300, 600]
    assert all(0 < row["journal"] < row["input"] < row["results"] for row in rows)
    assert all(0 < row["measured"] <= row["peak"] for row in rows)


def test_captions_are_distinct_and_the_same_again() -> None:
    first, second = (list(scale.captions(2000)) for _ in range(2))
    assert first == second
    assert len(set(first)) == 2000
    assert 50 < sum(map(len, first)) / 2000 < 100


def test_an_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        scale.main(["lists"])
    assert caught.value.code == 2
    assert "no such part: lists" in capsys.readouterr().err

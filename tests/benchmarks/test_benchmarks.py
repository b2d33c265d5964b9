"""The plumbing of the benchmarks that run without PyTorch, on few calls."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path

import pytest

from benchmarks import cold_start, soak

pytestmark = pytest.mark.slow

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux_only
@pytest.mark.slow
def test_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--calls", "100", "--every", "10", "--backend", "onnxruntime", "--threads", "1"]
    with pytest.raises(SystemExit) as caught:
        soak.main([*options, "--output", str(tmp_path)])
    report = json.loads((tmp_path / "soak.json").read_bytes())
    [row] = report["rows"]
    assert (row["backend"], row["calls"], len(row["rss"])) == ("onnxruntime", 100, 11)
    assert all(size > 20e6 for size in row["rss"])  # numpy alone takes more
    assert row["growth"] == row["rss"][-1] / row["rss"][5] - 1
    assert caught.value.code == (row["growth"] > soak.GROWTH)
    assert "growth" in capsys.readouterr().out


@linux_only
def test_resident_memory_is_what_was_touched() -> None:
    """Mapped anew: an allocator may hand out what it kept, which is resident already."""
    touched = b"x" * 50_000_000
    with mmap.mmap(-1, len(touched)) as mapped:
        before = soak.resident()
        mapped.write(touched)
        assert soak.resident() - before >= 0.9 * len(touched)


@pytest.mark.parametrize(("last", "code"), [(1009, 0), (1011, 1)])
@pytest.mark.slow
def test_growing_memory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int, code: int
) -> None:
    """Counted from the 2,000th call: what is taken before that is warming up."""

    found = soak.Soak("onnxruntime", 4000, 1000, 1.0, (10, 900, 1000, 1000, last))
    monkeypatch.setattr(soak, "alone", lambda *_: found)
    with pytest.raises(SystemExit) as caught:
        soak.main(["--backend", "onnxruntime", "--output", str(tmp_path)])
    assert caught.value.code == code


@pytest.mark.slow
def test_cold_start(tmp_path: Path) -> None:
    cold_start.main(["--runs", "1", "--backend", "onnxruntime", "--output", str(tmp_path)])
    medians = json.loads((tmp_path / "cold-start.json").read_bytes())["medians"]
    stages = medians["onnxruntime"]
    assert all(seconds > 0 for seconds in stages.values())
    assert sum(stages[name] for name in cold_start.STAGES) < stages["whole"]
    assert medians["mnemoscope screen, onnxruntime"]["whole"] > stages["import"]

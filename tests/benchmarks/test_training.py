"""The experiment in fine-tuning, on artwork drawn here and for a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from descriptor_support import as_it_comes
from PIL import Image, ImageDraw

from benchmarks import training

pytestmark = pytest.mark.slow


@pytest.fixture
def artwork() -> dict[tuple[str, str], Image.Image]:
    drawn = {}
    for vendor, colour in (("google", "red"), ("twitter", "blue")):
        for thing in ("circle", "square"):
            picture = Image.new("RGBA", (64, 64))
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if thing == "circle" else pen.rectangle)((8, 8, 56, 56), fill=colour)
            drawn[vendor, thing] = picture
    return drawn


@pytest.mark.slow
def test_every_arm_runs_once(
    artwork: dict[tuple[str, str], Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "TIMESTEPS", (100,))
    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(training, "HELD_OUT", 2)
    monkeypatch.setattr(training, "WARMUP", 0)
    sizes = ["--duplicated", "2", "--others", "8", "--batch", "8", "--draws", "1", "--rounds", "1"]
    arms = ("none", "random tokens", "hard", "quantiles, stricter")
    options = [*sizes, "--repeats", "1", "2", "--seeds", "1", "--output", str(tmp_path)]
    options += ["--arms", *arms]
    descriptor = str(as_it_comes(tmp_path / "a.onnx", takes_bytes=True))
    training.main([*options, "--descriptor", descriptor], artwork)
    report = json.loads((tmp_path / "training.json").read_bytes())
    assert [row["arm"] for row in report["runs"]] == list(arms)
    for row in report["runs"]:
        assert [level["repeats"] for level in row["levels"]] == [1, 2]
        assert all(len(level["copy"]) == len(level["sscd"]) == 2 for level in row["levels"])
    none, tokens, hard, quantiles = report["runs"]
    assert none["threshold"] is None
    assert none["all"] is None
    assert none["levels"] != tokens["levels"]
    assert hard["threshold"]["kind"] == "HardThreshold"
    assert quantiles["threshold"]["factor"] == 1.5
    # two steps of eight samples; dropped captions are not judged, duplicated ones never dropped
    assert hard["duplicated"]["seen"] == quantiles["duplicated"]["seen"] == 4
    assert 4 < quantiles["all"]["seen"] <= 16
    assert quantiles["all"]["skipped"] == 0  # its bins are still warming up
    assert report["separation"]["100"]["auc"] > 0.95  # memorised pictures against new ones
    assert all(each["ratio"] > 0 for each in report["overhead"].values())
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.width > 500

    monkeypatch.delattr(training, "run")  # nothing is run again
    capsys.readouterr()
    training.main([*options, "--rounds", "0"], artwork)
    assert "copy similarity" in capsys.readouterr().out
    training.main([*options, "--rounds", "0", "--descriptor", descriptor], artwork)
    del report["runs"][-1]["levels"][-1]["sscd"]  # as a run without it has written
    (tmp_path / "training.json").write_text(json.dumps(report))
    with pytest.raises(SystemExit):
        training.main([*options, "--descriptor", descriptor], artwork)
    assert "runs that SSCD did not judge" in capsys.readouterr().err

"""`mnemoscope calibration`: which file is meant, and what is shown of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import SETTING, made
from cli_support import Run, copied, failed
from repository import ROOT
from scipy.stats import beta

from mnemoscope import CalibrationFile, embedded
from mnemoscope.calibration.calibration import Carried

KNOWN = CalibrationFile.read(embedded.BUNDLE / "calibration.json").calibrations


def test_a_bundle_stands_for_its_calibration(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = copied(embedded.BUNDLE, tmp_path / "bundle") / "calibration.json"
    shown = run("calibration", "inspect", file)
    assert shown.code == 0
    for given in ((), ("embedded",), ("bundle",), (embedded.BUNDLE,)):
        assert run("calibration", "inspect", *given) == shown
    merged = run("calibration", "merge", "embedded", "bundle", "-o", "both.json")
    assert merged.code == 0, merged.err
    assert CalibrationFile.read("both.json").calibrations == KNOWN
    before = file.read_bytes()
    assert run("calibration", "update", "bundle").code == 0
    assert file.read_bytes() == before


def test_what_has_none_and_what_ships(run: Run, tmp_path: Path) -> None:
    failed(run("calibration", "inspect", tmp_path), 4, "has no calibration", "mnemoscope calibrate")
    failed(run("calibration", "inspect", tmp_path / "c.json"), 4, "No such file")
    failed(run("calibration", "inspect", "embeded"), 2, "Did you mean embedded")
    failed(run("calibration", "update", "embedded"), 2, "part of the installation")
    (tmp_path / "r.jsonl").write_text("{}")
    failed(
        run("calibration", "check", "--recent", tmp_path / "r.jsonl"), 2, "is not what `mnemoscope"
    )


def test_json_tells_what_the_table_does(run: Run) -> None:
    told = json.loads(run("calibration", "inspect", "--format", "json").out)
    assert len(told) == len(KNOWN)
    for row, each in zip(told, KNOWN, strict=True):
        assert (row["detector"], row["backend"]) == (each.setting.detector, each.setting.backend)
        assert (row["threshold"], row["benign"]) == (each.threshold, len(each.scores))
        assert row["benign_flagged"] <= 0.01 * row["benign"]
        if each.positives:
            hits = sum(score > each.threshold for score in each.positives)
            low = beta.ppf(0.025, hits, len(each.positives) - hits + 1)
            assert row["tpr"] == {
                "value": hits / len(each.positives),
                "low": pytest.approx(low),
                "high": pytest.approx(beta.ppf(0.975, hits + 1, len(each.positives) - hits)),
            }


def test_where_one_was_carried_from_and_names_that_are_hostile(run: Run, tmp_path: Path) -> None:
    there = replace(SETTING, backend="openvino", detector="[red]\x1b[31m")
    carried = replace(made(there), carried=Carried("onnxruntime", 10, 0.0))
    CalibrationFile((made(), carried)).write(tmp_path / "c.json")
    shown = run("calibration", "inspect", tmp_path / "c.json").out
    assert "carried over from onnxruntime; on 10 prompts" in shown
    assert "[red]\\x1b[31m" in shown
    assert "\x1b" not in shown


def test_the_page_has_the_figures_that_are_shown(run: Run) -> None:
    page = (ROOT / "docs" / "calibration.md").read_text("utf-8")
    [table] = re.findall(r"\| steps \| noises \| threshold \| flagged \|\n.*?\n\n", page, re.S)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    rows = [row for row in rows if row]
    assert len(rows) == 4
    shown = run("calibration", "inspect").out
    for steps, noises, threshold, flagged in rows:
        pattern = rf"magnitude +{steps} +{noises} +onnxruntime .*{re.escape(flagged)} of 100"
        assert len(re.findall(pattern, shown)) == 1
        alike = (each for each in KNOWN if each.setting.detector == "magnitude")
        [found] = {
            f"{each.threshold:.3f}"
            for each in alike
            if (each.setting.steps, each.setting.noises) == (int(steps), int(noises))
        }
        assert found == threshold

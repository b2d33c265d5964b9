"""What `screen` exits with, and its formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cli_support import (
    KEYS,
    PROMPTS,
    Fake,
    Run,
    calibrate,
    copied,
    failed,
    shell,
)

from mnemoscope import Detector
from mnemoscope_runtime import Bundle


def test_nothing_is_flagged_without_a_threshold(run: Run, bundle_dir: Path) -> None:
    result = run("screen", "a cat", "rain", "--bundle", bundle_dir)
    assert result.code == 5
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        [line.split()[0], "-", "-", *prompt.split()]
        for line, prompt in zip(result.out.splitlines()[1:], ["a cat", "rain"], strict=True)
    ]
    assert result.err.startswith(
        "note: no verdicts. There is no calibration of magnitude at 1 step"
    )
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("threshold", "code", "verdict"), [(0.0, 1, "memorized"), (1e9, 0, "clean")]
)
def test_the_exit_code_tells_whether_something_was_flagged(
    bundle_dir: Path, tmp_path: Path, threshold: float, code: int, verdict: str
) -> None:
    path = calibrate(bundle_dir, threshold, tmp_path / "c.json")
    result = shell("screen", "a cat", "--bundle", bundle_dir, "--calibration", path)
    assert result.code == code
    header, row = result.out.splitlines()
    assert header.split() == ["score", "p", "verdict", "prompt"]
    assert row.split(maxsplit=3)[2:] == [verdict, "a cat"]
    assert result.err == ""


def test_one_flagged_prompt_among_others_is_enough(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path
) -> None:
    magnitudes = iter([0.1, 0.9, 0.2])
    fake(lambda _: next(magnitudes))
    path = calibrate(bundle_dir, 0.5, tmp_path / "c.json", backend="fake")
    result = run("screen", *PROMPTS, "--bundle", bundle_dir, "--calibration", path)
    assert result.code == 1
    verdicts = [line.split()[2] for line in result.out.splitlines()[1:]]
    assert verdicts == ["clean", "memorized", "clean"]


def test_the_bundles_own_calibration_is_used(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 0.0, bundle / "calibration.json")
    assert run("screen", "a cat", "--bundle", bundle).code == 1


def test_a_setting_without_a_threshold_has_no_verdict(
    run: Run, bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = copied(bundle_dir, tmp_path / "bundle")
    path = calibrate(bundle, 0.0, bundle / "calibration.json")
    args = ("screen", "a cat", "--steps", 2, "--format", "json", "--bundle", bundle)
    result = run(*args)
    assert result.code == 5
    assert result.rows[0]["p_value"] is None
    assert result.rows[0]["threshold"] is None
    assert result.rows[0]["memorized"] is None
    assert "note: no verdicts. There is no calibration of magnitude at 2 steps" in result.err
    assert "--steps 2 --noises 3` makes one" in result.err
    failed(run(*args, "--calibration", path), 4, "no calibration of magnitude at 2 steps")


def test_json(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = calibrate(bundle_dir, 0.0, tmp_path / "c.json")
    result = run(
        *("screen", *PROMPTS, "--format", "json"),
        *("--bundle", bundle_dir, "--calibration", path),
    )
    with Detector.load(bundle_dir, uncalibrated="score") as detector:
        expected = detector.screen(PROMPTS)
    assert [list(row) for row in result.rows] == [KEYS] * 3
    assert [row["prompt"] for row in result.rows] == PROMPTS
    assert "猫" in result.out  # as it is, not escaped
    for row, detection in zip(result.rows, expected, strict=True):
        assert row["score"] == pytest.approx(detection.score, rel=1e-5)
        assert row["scores"] == pytest.approx(list(detection.scores), rel=1e-5)
        assert row["threshold"] == 0.0
        assert row["memorized"] is True
        assert row["backend"] == "onnxruntime"
        assert row["bundle"] == Bundle.open(bundle_dir).id


def test_csv(run: Run, bundle_dir: Path) -> None:
    prompts = ['a "quoted", one', "two\nlines"]
    result = run("screen", *prompts, "--format", "csv", "--bundle", bundle_dir)
    rows = list(csv.DictReader(io.StringIO(result.out, newline="")))
    assert [list(row) for row in rows] == [KEYS] * 2
    assert [row["prompt"] for row in rows] == prompts
    for row in rows:
        scores = [float(score) for score in row["scores"].split()]
        assert len(scores) == 3
        assert float(row["score"]) == pytest.approx(sum(scores) / 3, rel=1e-5)
        assert row["threshold"] == row["memorized"] == ""


def test_noises_and_threads(run: Run, bundle_dir: Path) -> None:
    rows = run(
        *("screen", "a cat", "--format", "json", "--bundle", bundle_dir),
        *("--noises", 2, "--threads", 1),
    ).rows
    assert len(rows[0]["scores"]) == 2


@pytest.mark.parametrize(
    ("name", "format_", "kind"),
    [
        ("out.json", None, "json"),
        ("out.jsonl", None, "json"),
        ("OUT.CSV", None, "csv"),
        ("out.txt", None, "table"),
        ("out", None, "table"),
        ("out.csv", "json", "json"),
        ("out.json", "table", "table"),
    ],
)
def test_the_format_of_a_file(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str, format_: str | None, kind: str
) -> None:
    args = () if format_ is None else ("--format", format_)
    path = tmp_path / name
    result = run("screen", *PROMPTS, "--bundle", bundle_dir, "--output", path, *args)
    assert (result.code, result.out) == (5, "")
    text = path.read_text("utf-8")
    first = text.splitlines()[0]
    if kind == "json":
        assert [json.loads(line)["prompt"] for line in text.splitlines()] == PROMPTS
    elif kind == "csv":
        assert first == ",".join(KEYS)
        assert [row["prompt"] for row in csv.DictReader(io.StringIO(text))] == PROMPTS
    else:
        assert first.split() == ["score", "p", "verdict", "prompt"]
        assert [line[30:] for line in text.splitlines()[1:]] == PROMPTS

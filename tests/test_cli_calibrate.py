from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Run, calibrate, failed, foreign, one_model
from PIL import Image

from mnemoscope import CalibrationFile

BENIGN = [f"a cat, number {i}" for i in range(60)]
PROMISE = ("--fpr", 0.1, "--delta", 0.2)


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    path = tmp_path / "benign.txt"
    path.write_text("\n".join(BENIGN))
    return path


@one_model
def test_calibrate_then_screen(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    positives = tmp_path / "positives.csv"
    positives.write_text("caption,kind\nrain,MV\nsnow,TV\n")
    output, picture = tmp_path / "c.json", tmp_path / "plot.png"
    result = run(
        *("calibrate", bundle_dir, "--benign", benign, "--positives", positives, *PROMISE),
        *("--steps", "1,2", "--noises", 2, "-o", output, "--plot", picture),
    )
    assert result.code == 0, result.err
    one, two, written, plotted = result.out.splitlines()
    assert one.startswith("magnitude at 1 step(s) on 2 noise(s), onnxruntime, bundle ")
    assert "With 80% confidence it flags at most 0.1 of benign prompts drawn like these 60" in one
    assert "Of 2 memorised prompts it flags " in two
    assert (written, plotted) == (f"calibration {output}", f"plot {picture}")
    assert Image.open(picture).format == "PNG"
    screened = run(
        *("screen", BENIGN[0], "--bundle", bundle_dir, "--calibration", output),
        *("--noises", 2, "--steps", 2, "--format", "json"),
    )
    row = screened.rows[0]
    assert 1 / 61 <= row["p_value"] <= 1
    assert row["memorized"] is (row["score"] > row["threshold"])
    wrong = run("screen", "rain", "--bundle", bundle_dir, "--calibration", output, "--noises", 1)
    failed(wrong, 4, "no calibration of magnitude at 1 step(s) on 1 noise(s)", "--noises 1` makes")


@one_model
def test_a_detector_that_learns(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    args = ("--detector", "latent-update", "--steps", 2, "--noises", 1)
    result = run("calibrate", bundle_dir, "--benign", benign, *PROMISE, *args, "-o", output)
    assert result.code == 0, result.err
    assert "drawn like these 30" in result.out  # the other half taught it
    screened = run("screen", "rain", "--bundle", bundle_dir, "--calibration", output, *args)
    assert screened.code in (0, 1), screened.err
    failed(run("screen", "rain", "--bundle", bundle_dir, *args), 4, "shows it some")


@one_model
def test_settings_gather_in_one_file(
    run: Run, bundle_dir: Path, benign: Path, tmp_path: Path
) -> None:
    output = tmp_path / "c.json"
    args = ("calibrate", bundle_dir, "--benign", benign, *PROMISE, "-o", output)
    for noises in (1, 2, 1):
        assert run(*args, "--noises", noises).code == 0
    found = CalibrationFile.read(output).calibrations
    assert [c.setting.noises for c in found] == [1, 2]
    shown = run("calibration", "inspect", output)
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 2
    before = output.read_bytes()
    failed(run(*args, "--fpr", 0.001), 2, "cannot promise", "that takes 1,609")
    assert output.read_bytes() == before
    failed(run(*args[:-1], foreign(tmp_path / "f.json")), 4, "f.json", "another --output")


@one_model
def test_what_is_left_out_is_said(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    benign.write_text("\n".join([*BENIGN, BENIGN[0]]))
    positives = tmp_path / "p.txt"
    positives.write_text(BENIGN[1])
    args = ("--positives", positives, "-o", tmp_path / "c.json", *PROMISE)
    result = run("calibrate", bundle_dir, "--benign", benign, *args)
    assert result.code == 0
    assert "note: 1 benign prompts are repetitions" in result.err
    assert "note: 1 benign prompts are among the memorised ones" in result.err
    assert "drawn like these 59" in result.out


@one_model
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no prompts"), (b"one\n", "1 benign prompts cannot"), (b"\xe9t\xe9\n", "UTF-8")],
)
def test_benign_files_that_calibrate_nothing(
    run: Run, bundle_dir: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "b.txt"
    file.write_bytes(content)
    result = run("calibrate", bundle_dir, "--benign", file, "-o", tmp_path / "c.json")
    failed(result, 2, words)
    assert not (tmp_path / "c.json").exists()


@one_model
def test_usage(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    to = ("-o", tmp_path / "c.json")
    failed(run("calibrate", "--benign", benign), 2, "embedded bundle", "--output")
    for option, value in (("--steps", "1,x"), ("--noises", "0"), ("--steps", "")):
        result = run("calibrate", bundle_dir, "--benign", benign, *to, option, value)
        failed(result, 2, f"{option} takes whole numbers")
    failed(
        run("calibrate", bundle_dir, "--benign", benign, *to, "--column", "x", "--detector", "y"),
        2,
        "no detector 'y'",
    )


# calibration merge, check


@one_model
def test_merge(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    files = []
    for i, part in enumerate((BENIGN[:40], BENIGN[30:])):
        file, prompts = tmp_path / f"{i}.json", tmp_path / f"{i}.txt"
        prompts.write_text("\n".join(part))
        result = run("calibrate", bundle_dir, "--benign", prompts, *PROMISE, "-o", file)
        assert result.code == 0, result.err
        files.append(file)
    merged = run("calibration", "merge", *files, "-o", tmp_path / "m.json")
    assert merged.code == 0
    assert "drawn like these 60" in merged.out
    other = foreign(tmp_path / "f.json")
    failed(run("calibration", "merge", files[0], other, "-o", tmp_path / "x.json"), 4, "made on")
    assert not (tmp_path / "x.json").exists()


def results(path: Path, row: dict[str, object], scores: list[float]) -> Path:
    lines = [json.dumps(row | {"score": score, "scores": [score] * 3}) for score in scores]
    path.write_text("\n".join(lines))
    return path


@one_model
def test_check(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    file = calibrate(bundle_dir, 0.5, tmp_path / "c.json")  # a hundred scores of 0
    known = CalibrationFile.read(file).calibrations[0].setting
    row = {"detector": "magnitude", "backend": "onnxruntime", "bundle": known.bundle}
    row |= {"steps": 1, "noises": 3}
    same = results(tmp_path / "same.jsonl", row, [0.0] * 30)
    calm = run("calibration", "check", file, "--recent", same)
    assert calm.code == 0
    assert "no sign" in calm.out
    higher = results(tmp_path / "higher.jsonl", row, [0.1] * 30)
    drifted = run("calibration", "check", file, "--recent", higher)
    assert drifted.code == 1
    assert "Calibrate again" in drifted.out
    check = ("calibration", "check", file, "--recent")
    failed(run(*check, results(tmp_path / "few.jsonl", row, [0.0])), 2, "20 or more")
    failed(run(*check, higher, "--level", 1), 2, "between 0 and 1")
    other = results(tmp_path / "o.jsonl", row | {"backend": "openvino"}, [0.0] * 30)
    failed(run(*check, other), 4, "no calibration of what", "openvino")
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(same.read_text() + "\n" + other.read_text())
    failed(run(*check, mixed), 2, "mixes settings")
    (tmp_path / "bad.jsonl").write_text('{"score": 1}\n')
    failed(run(*check, tmp_path / "bad.jsonl"), 2, "is not what `mnemoscope screen")
    (tmp_path / "empty.jsonl").write_text("")
    failed(run(*check, tmp_path / "empty.jsonl"), 2, "holds no results")
    failed(run(*check, tmp_path / "none.jsonl"), 2, "cannot be read")

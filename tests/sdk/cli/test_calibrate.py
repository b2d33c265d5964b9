from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from calibrations import made
from cli_support import Run, calibrate, failed, foreign
from PIL import Image

from mnemoscope import CalibrationFile

BENIGN = [f"a cat, number {i}" for i in range(60)]
PROMISE = ("--fpr", 0.1, "--delta", 0.2)


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    path = tmp_path / "benign.txt"
    path.write_text("\n".join(BENIGN))
    return path


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
    assert one.startswith("magnitude at 1 step on 2 noises, onnxruntime, bundle ")
    assert "With 80 % confidence it flags at most 10 % of benign prompts drawn like these 60" in one
    flagged = re.search(r"60, of which it flags (\d+)\. To promise less than 2\.6 % takes", one)
    assert flagged, one
    known = CalibrationFile.read(output).calibrations[0]
    assert int(flagged[1]) == sum(score > known.threshold for score in known.scores)
    assert re.search(
        r"more prompts\. Of 2 memorised prompts it flags \d+ % \[\d+, \d+\], with 95 %", two
    )
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
    failed(wrong, 4, "no calibration of magnitude at 1 step on 1 noise", "--noises 1` makes")


def test_a_detector_that_learns(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    args = ("--detector", "latent-update", "--steps", 2, "--noises", 1)
    result = run("calibrate", bundle_dir, "--benign", benign, *PROMISE, *args, "-o", output)
    assert result.code == 0, result.err
    assert "drawn like these 30" in result.out  # the other half taught it
    screened = run("screen", "rain", "--bundle", bundle_dir, "--calibration", output, *args)
    assert screened.code in (0, 1), screened.err
    failed(
        run("screen", "rain", "--bundle", bundle_dir, *args),
        4,
        "no scores without one",
        "--steps 2",
    )


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
    assert re.findall(r"^ magnitude +1 +(\d) ", shown.out, re.M) == ["1", "2"]
    before = output.read_bytes()
    failed(run(*args, "--fpr", 0.001), 2, "cannot promise", "that takes 1,609")
    assert output.read_bytes() == before
    failed(run(*args[:-1], foreign(tmp_path / "f.json")), 4, "f.json", "another --output")


def test_what_is_left_out_is_said(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    benign.write_text("\n".join([*BENIGN, BENIGN[0]]))
    positives = tmp_path / "p.txt"
    positives.write_text(BENIGN[1])
    args = ("--positives", positives, "-o", tmp_path / "c.json", *PROMISE)
    result = run("calibrate", bundle_dir, "--benign", benign, *args)
    assert result.code == 0
    assert "note: Each benign prompt counts once: 1 prompt left out, to the" in result.err
    assert "note: Left out of the benign: 1 prompt among the memorised ones" in result.err
    assert "drawn like these 59" in result.out


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no prompts"), (b"one\n", "1 benign prompt cannot"), (b"\xe9t\xe9\n", "UTF-8")],
)
def test_benign_files_that_calibrate_nothing(
    run: Run, bundle_dir: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "b.txt"
    file.write_bytes(content)
    result = run("calibrate", bundle_dir, "--benign", file, "-o", tmp_path / "c.json")
    failed(result, 2, words)
    assert not (tmp_path / "c.json").exists()


def test_usage(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    to = ("-o", tmp_path / "c.json")
    failed(run("calibrate", "--benign", benign), 2, "part of the installation", "--output")
    for option, value in (("--steps", "1,x"), ("--noises", "0"), ("--steps", "")):
        result = run("calibrate", bundle_dir, "--benign", benign, *to, option, value)
        failed(result, 2, f"{option} takes whole numbers")
    failed(
        run("calibrate", bundle_dir, "--benign", benign, *to, "--detector", "y"),
        2,
        "no detector 'y'",
    )


def test_files_that_could_not_be_written_are_refused_first(
    run: Run, bundle_dir: Path, benign: Path, tmp_path: Path
) -> None:
    args = ("calibrate", bundle_dir, "--benign", benign, *PROMISE, "-o")
    failed(run(*args, tmp_path / "no" / "c.json"), 2, "there is no folder")
    failed(run(*args, tmp_path), 2, "is a folder")
    output = tmp_path / "c.json"
    failed(run(*args, output, "--plot", tmp_path / "p.xyz"), 2, "--plot writes .png")
    assert not output.exists()


# cascades


def test_a_cascade_from_calibrating_to_drift(
    run: Run, bundle_dir: Path, benign: Path, tmp_path: Path
) -> None:
    output, results = tmp_path / "c.json", tmp_path / "r.jsonl"
    first = ("--first", "magnitude", "--clear", 0.8)
    result = run("calibrate", bundle_dir, "--benign", benign, *PROMISE, *first, "-o", output)
    assert result.code == 0, result.err
    stages = "magnitude at 1 step on 3 noises, after magnitude at 1 step on 1 noise, "
    assert result.out.startswith(f"{stages}which clears 0.8, onnxruntime, bundle ")
    assert "drawn like these 30" in result.out
    assert (
        "magnitude at 1 step on 1 noise, which clears 0.8"
        in run("calibration", "inspect", output).out
    )
    args = ("--bundle", bundle_dir, "--calibration", output)
    screened = run("screen", "--file", benign, *args, *first, "-o", results)
    assert screened.code in (0, 1), screened.err
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    cleared = [row for row in rows if row["cleared"]]
    assert 30 < len(cleared) < 60
    assert {row["passes"] for row in cleared} == {1}
    mean = (60 + 3 * (60 - len(cleared))) / 60
    assert (
        f"note: the first stage cleared {len(cleared)} of 60 prompts; {mean:.3g} network passes a "
        "prompt on average." in screened.err
    )
    drift = run("calibration", "check", output, "--recent", results)
    assert "30 calibrated" in drift.out, drift
    audited = run("audit", benign, *args, *first, "--fdr", 0.9, "-o", tmp_path / "a.csv")
    assert audited.code in (0, 1), audited.err
    wrong = run("screen", "rain", *args, "--first", "magnitude")
    failed(wrong, 4, "which clears 0.9", "--first-noises 1 --clear 0.9` makes")
    failed(run("screen", "rain", *args), 4, "no calibration of magnitude at 1 step on 3")
    uncalibrated = run("screen", "rain", "--bundle", bundle_dir, *first)
    failed(uncalibrated, 4, "only after it has seen benign prompts", "--clear 0.8`")


def test_first_stages_that_cannot_be(run: Run, bundle_dir: Path, benign: Path) -> None:
    for options, words in (
        (("--clear", 0.8), "Name its detector"),
        (("--first-noises", 1), "Name its detector"),
        (("--first", "magnitude", "--clear", 1), "between 0 and 1"),
        (("--first", "magnitude", "--first-noises", 3), "saves nothing"),
        (("--first", "taps"), "has no taps"),
        (("--first", "cheap"), "no detector 'cheap'"),
    ):
        failed(run("calibrate", bundle_dir, "--benign", benign, *PROMISE, *options), 2, words)
        if "saves nothing" not in words:
            failed(run("screen", "rain", "--bundle", bundle_dir, *options), 2, words)


# --target-tpr


def test_the_cheapest_setting_is_kept(
    run: Run, bundle_dir: Path, benign: Path, tmp_path: Path
) -> None:
    positives, output = tmp_path / "p.txt", tmp_path / "c.json"
    positives.write_text("\n".join(f"a cat, number {i}" for i in range(60, 80)))
    args = ("calibrate", bundle_dir, "--benign", benign, "--fpr", 0.3, "--delta", 0.4)
    args += ("-o", output, "--noises", "1,2", "--steps", "1,2")
    result = run(*args, "--positives", positives, "--target-tpr", 0.1)
    assert result.code == 0, result
    header, *rows = [line.split() for line in result.out.splitlines()[:5]]
    assert header[:4] == ["detector", "steps", "noises", "MFLOP"]
    tprs = [float(row[5]) for row in rows]
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)
    place = next(i for i, tpr in enumerate(tprs) if tpr >= 0.1)
    assert [row[-1] == "chosen" for row in rows] == [i == place for i in range(4)]
    [kept] = CalibrationFile.read(output).calibrations
    assert [str(kept.setting.steps), str(kept.setting.noises)] == rows[place][1:3]
    assert "Chosen among 4 settings" in result.out
    assert "With 60 % confidence" in result.out
    before = output.read_bytes()
    file = tmp_path / "more.txt"
    file.write_text("\n".join(f"a cat, numbered {i}" for i in range(10)))
    missed = run(*args, "--positives", file, "--target-tpr", 1)
    assert missed.code == 2
    assert len(missed.out.splitlines()) == 5  # the candidates
    assert "chosen" not in missed.out
    error = missed.err.splitlines()[-1]
    assert error.startswith("error: None of the 4 candidates flags 1 of the memorised prompts")
    assert output.read_bytes() == before


def test_targets_that_are_none(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    positives = tmp_path / "p.txt"
    positives.write_text("rain\nsnow\n")
    args = ("calibrate", bundle_dir, "--benign", benign, *PROMISE, "-o", tmp_path / "c.json")
    failed(run(*args, "--target-tpr", 0.5), 2, "--positives")
    args += ("--positives", positives)
    failed(run(*args, "--target-tpr", 1.5), 2, "--target-tpr 1.5 is not")
    failed(run(*args, "--target-tpr", 0.5, "--detector", "magnitude,taps"), 2, "has no taps")
    failed(run(*args, "--target-tpr", 0.5, "--detector", "magnitude,y"), 2, "no detector 'y'")
    assert not (tmp_path / "c.json").exists()


def test_several_detectors(run: Run, bundle_dir: Path, benign: Path, tmp_path: Path) -> None:
    args = ("calibrate", bundle_dir, "--benign", benign, *PROMISE, "--noises", 1)
    for names, expected in (
        ("magnitude, anisotropy", ["magnitude", "anisotropy"]),
        ("auto", ["magnitude"]),  # a bundle without taps
    ):
        output = tmp_path / f"{len(expected)}.json"
        result = run(*args, "--detector", names, "-o", output)
        assert result.code == 0, result
        found = CalibrationFile.read(output).calibrations
        assert [each.setting.detector for each in found] == expected


# calibration update, merge, check


def test_update(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    CalibrationFile((made(),)).write(path)
    new = path.read_bytes()
    [entry] = json.loads(new)["calibrations"]
    old = {"kind": "mnemoscope-calibration", "schema": 3, "calibrations": [entry["calibration"]]}
    path.write_text(json.dumps(old))
    failed(run("calibration", "inspect", path), 4, f"`mnemoscope calibration update {path}` adds")
    result = run("calibration", "update", path)
    assert result.code == 0, result
    assert result.out.endswith(f"calibration {path}\n")
    assert path.read_bytes() == new
    old["calibrations"][0]["threshold"] = 1e9
    path.write_text(json.dumps(old))
    failed(run("calibration", "update", path), 4, str(path), "a threshold of 1e+09")
    assert json.loads(path.read_bytes()) == old


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


def test_check(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    file = calibrate(bundle_dir, 0.5, tmp_path / "c.json")  # a hundred scores of 0
    known = CalibrationFile.read(file).calibrations[0].setting
    row = {"detector": "magnitude", "backend": "onnxruntime", "bundle": known.bundle}
    row |= {"steps": 1, "noises": 3}
    same = results(tmp_path / "same.jsonl", row, [0.0] * 30)
    calm = run("calibration", "check", file, "--recent", same)
    assert calm.code == 0
    assert "no sign" in calm.out
    with same.open("a") as file_of_rows:  # what could not be screened says nothing
        file_of_rows.write('\n{"prompt": "", "score": null, "error": "not UTF-8"}\n')
    assert run("calibration", "check", file, "--recent", same).out == calm.out
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

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, failed
from evaluate_support import HOSTILE, nonsense
from prompt_support import Save

from mnemoscope import DETECTORS, embedded
from mnemoscope.detector import Detector
from mnemoscope.evaluate import Interval, bootstrap

ON_ENGINES = [name for name, statistic in DETECTORS.items() if not statistic.needs_torch]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Memorised prompts with kinds, hostile ones among them, and others."""
    known, others = tmp_path / "known.csv", tmp_path / "others.jsonl"
    prompts = [*(prompt.replace("\x00", "") for prompt in HOSTILE), *nonsense(4, 1)]
    with known.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "kind"])
        rows.writerows((" ".join(prompt.split()), f"k{i % 2}") for i, prompt in enumerate(prompts))
    others.write_text("".join(json.dumps({"text": p}) + "\n" for p in nonsense(10, 2)), "utf-8")
    return known, others


def lists(files: tuple[Path, Path]) -> list[str]:
    return ["--positives", str(files[0]), "--negatives", str(files[1]), "--threads", "1"]


def test_the_table(
    run: Run,
    bundle_dir: Path,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quick(*scores: Any, **told: Any) -> Interval:
        return bootstrap(*scores, **told | {"repetitions": 5})

    monkeypatch.setattr("mnemoscope.evaluate.table.bootstrap", quick)
    out = tmp_path / "out" / "here"
    result = run(
        *("evaluate", bundle_dir, *lists(files), "--label", "kind", "--detector", "all"),
        *("--steps", "1,2", "--noises", "1,3", "--output", out),
    )
    assert result.code == 0, result
    for word in (*ON_ENGINES, "By label", "k0", "k1", "bag of words", "groups of near duplicates"):
        assert word in result.out
    assert "\x1b[31m" not in result.out
    assert "anisotropy, latent-update: learned from one half" in result.err
    assert "1 % of 10 other prompts" in result.err
    assert "note: attention-entropy, bright-ending need --backend torch" in result.err
    assert "note: tiled-l2, copy-similarity take whole pictures" in result.err
    settings = sum(2 if DETECTORS[name].only_first else 4 for name in ON_ENGINES)
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert len(report["scores"]) == settings
    assert len(report["rows"]) == 3 * settings
    assert report["subject"]["backend"] == "onnxruntime"
    assert len(report["subject"]["bundle"]) == 64
    assert report["environment"]["threads"] == "1"
    first = report["scores"][0]
    with Detector.load(bundle_dir, threads=1, uncalibrated="score") as detector:
        expected = detector.screen([row["prompt"] for row in report["negatives"]], noises=1)
    assert first["negatives"] == pytest.approx([d.score for d in expected], rel=1e-4)
    assert "<script>" not in (out / "report.html").read_text("utf-8")
    assert (out / "report.md").stat().st_size > 1000


def test_the_embedded_lists(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {split: embedded.read_prompts(split) for split in ("memorized", "seen", "held_out")}
    monkeypatch.setattr(
        "mnemoscope.cli.evaluate.embedded.read_prompts",
        lambda *splits: [row for split in splits for row in rows[split][:8]],
    )
    result = run("evaluate", "--noises", "1", "--threads", "1")
    assert result.code == 0, result
    assert "positives  8 " in result.out
    assert "negatives  16 " in result.out
    (row,) = [line for line in result.out.splitlines() if line.lstrip().startswith("magnitude")]
    assert float(row.split()[3]) > 0.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--noises", "1,4"], ["has 3 noises", "--noises 1,4"]),
        (["--steps", "60"], ["has 50 steps"]),
        (["--steps", "x"], ["--steps takes whole numbers"]),
        (["--detector", "magic"], ["no detector 'magic'", "sharpness"]),
        (["--column", "title"], ["no column title", "--column"]),
        (["--label", "type"], ["no column type", "--label"]),
        (["--gen-seed", "3"], ["--protocol paper"]),
    ],
)
def test_options_that_mean_nothing(
    run: Run, bundle_dir: Path, files: tuple[Path, Path], options: list[str], words: list[str]
) -> None:
    failed(run("evaluate", bundle_dir, *lists(files), *options), 2, *words)


def test_lists_that_are_missing(run: Run, save: Save, tmp_path: Path) -> None:
    some, none = save("some.txt", "a cat\n"), save("none.txt", "")
    latin = save("latin.txt", b"a cat\ncaf\xe9\n")
    both = ["--positives", some, "--negatives"]
    failed(run("evaluate", "--positives", some), 2, "Give both --positives and --negatives")
    failed(run("evaluate", tmp_path), 2, "mean nothing to another model")
    failed(
        run("evaluate", "--label", "kind"), 2, "--label, --column and --no-quotes are about files"
    )
    failed(run("evaluate", *both, none), 2, "none.txt holds no prompts")
    failed(run("evaluate", *both, latin), 2, "latin.txt, line 2: not UTF-8")
    failed(run("evaluate", *both, tmp_path / "no.txt"), 2, "no.txt cannot be read")
    failed(run("evaluate", *both, some), 2, "Every other prompt is among the memorised")
    failed(run("evaluate", *both, some, "--label", "kind"), 2, "there is no label 'kind'")


def test_what_is_not_installed_is_said_first(
    run: Run, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    failed(run("evaluate", *lists(files), "-o", out), 3, "'.[calibrate,plot]")
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    failed(run("evaluate", *lists(files)), 3, "'.[calibrate]")


def test_an_output_that_cannot_be_a_folder(run: Run, files: tuple[Path, Path], save: Save) -> None:
    result = run("evaluate", *lists(files), "--output", save("file", "") / "out")
    failed(result, 2, "cannot be written", "--output")


# the paper's protocol


def test_the_papers_protocol(
    run: Run, model_dir: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(
        *("evaluate", "--protocol", "paper", "--model", model_dir, *lists(files)),
        *("--steps", "1,3", "--noises", "1,2", "--gen-seed", "5", "--output", tmp_path),
    )
    assert result.code == 0, result
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [(s["steps"], s["noises"]) for s in report["scores"]] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert report["subject"]["noises"].startswith("new for every prompt, seed 5")
    for kind, name in (("positives", "memorized"), ("negatives", "non_memorized")):
        text = (tmp_path / f"{name}_prompts.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["prompt"] for line in lines] == [row["prompt"] for row in report[kind]]
        for line, score in zip(lines, report["scores"][2][kind], strict=True):
            assert len(line["text_noise_norm"]) == len(line["uncond_noise_norm"]) == 2
            assert score == pytest.approx(sum(line["text_noise_norm"][0]) / 3, rel=1e-5)


def test_the_papers_protocol_and_options_of_others(run: Run, tmp_path: Path) -> None:
    paper = ["evaluate", "--protocol", "paper"]
    failed(run(*paper), 2, "Name a folder: --output")
    for other in ([tmp_path], ["--backend", "openvino"], ["--detector", "all"]):
        failed(run(*paper, *other, "-o", tmp_path), 2, "neither BUNDLE, --backend nor --detector")
    failed(run(*paper, "--model", tmp_path, "-o", tmp_path), 2, "mean nothing to another model")
    failed(run(*paper, "--steps", "51", "-o", tmp_path), 2, "50 steps")
    failed(run(*paper, "--gen-seed", "-1", "-o", tmp_path), 2, "seeds from 0 on")
    failed(run(*paper, "--device", "9", "-o", tmp_path), 3, "'cuda:9'", "--device")

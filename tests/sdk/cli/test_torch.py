"""PyTorch as a backend of `audit`, `bench` and `parity`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Run, calibration, copied, failed, in_steps

from mnemoscope import CalibrationFile, Setting, embedded
from mnemoscope_runtime import Bundle

pytestmark = pytest.mark.slow

PROMPTS = ("--positives", "positives.txt", "--benign", "benign.txt")


@pytest.fixture
def prompts(tmp_path: Path) -> list[str]:
    found = []
    for option, name in zip(PROMPTS[::2], PROMPTS[1::2], strict=True):
        file = tmp_path / name
        file.write_text("a cat\na dog in the rain\n" if "pos" in name else "a tree\ntwo birds\n")
        found += [option, str(file)]
    return found


def test_parity_with_pytorch(run: Run, prompts: list[str]) -> None:
    result = run("parity", "--backend", "torch", *prompts, "--format", "json", "--force")
    assert result.code == 0, result.err
    assert json.loads(result.out)["largest_error"] < 1e-4


def test_bench_beside_pytorch(
    run: Run, bundle_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnemoscope.benchmark.gemm._SIZE", 256)
    result = run(
        "bench", bundle_dir, "--backends", "onnxruntime,torch:bfloat16", "--model", model_dir,
        "--rounds", "2",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "torch:bfloat16" in result.out


def test_a_bundle_without_its_model(run: Run, bundle_dir: Path) -> None:
    result = run("bench", bundle_dir, "--backends", "torch")
    assert result.code == 2
    assert "Give it with --model" in result.err


def test_another_model(run: Run, bundle_dir: Path) -> None:
    result = run("bench", bundle_dir, "--backends", "torch", "--model", embedded.MODEL)
    assert result.code == 4
    assert "not those of" in result.err


def test_no_such_precision(run: Run) -> None:
    result = run("bench", "--backends", "torch:int3")
    assert result.code == 2
    assert "torch:bfloat16" in result.err


@pytest.mark.parametrize(
    ("detector", "backend", "steps"),
    [("attention-entropy", "torch", 1), ("tiled-l2", "onnxruntime", 5)],
)
def test_audits_with_detectors_that_need_pytorch(
    run: Run, bundle_dir: Path, model_dir: Path, tmp_path: Path, detector: str, backend: str,
    steps: int,
) -> None:  # fmt: skip
    bundle = in_steps(copied(bundle_dir, tmp_path / "bundle"), 5)
    known, prompts, output = (tmp_path / name for name in ("c.json", "p.txt", "r.jsonl"))
    prompts.write_text("a cat\na dog in the rain\n")
    setting = Setting(Bundle.open(bundle).id, backend, detector, steps, 2)
    CalibrationFile((calibration(setting, 0.0),)).write(known)
    args = ("audit", prompts, "-o", output, "--bundle", bundle, "--calibration", known)
    args = (*args, "--detector", detector, "--steps", steps, "--noises", 2, "--backend", backend)
    assert run(*args, "--model", model_dir).code in (0, 1)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    scores = [row["score"] for row in rows]
    assert len(scores) == 2
    assert scores[0] != scores[1]
    magnitude = run("audit", prompts, "-o", output, "--model", embedded.MODEL)
    failed(magnitude, 2, "would change nothing")

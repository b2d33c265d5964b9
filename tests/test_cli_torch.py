"""PyTorch as a backend of `bench` and `parity`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Run, one_model

from mnemoscope import embedded

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
    result = run("parity", "--backend", "torch", *prompts, "--json", "--force")
    assert result.code == 0, result.err
    assert json.loads(result.out)["largest_error"] < 1e-4


@one_model
def test_bench_beside_pytorch(run: Run, bundle_dir: Path, model_dir: Path) -> None:
    result = run(
        "bench", bundle_dir, "--backends", "onnxruntime,torch:bfloat16", "--model", model_dir,
        "--rounds", "2",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "torch:bfloat16" in result.out


@one_model
def test_a_bundle_without_its_model(run: Run, bundle_dir: Path) -> None:
    result = run("bench", bundle_dir, "--backends", "torch")
    assert result.code == 2
    assert "Give it with --model" in result.err


@one_model
def test_another_model(run: Run, bundle_dir: Path) -> None:
    result = run("bench", bundle_dir, "--backends", "torch", "--model", embedded.MODEL)
    assert result.code == 3
    assert "not those of" in result.err


def test_no_such_precision(run: Run) -> None:
    result = run("bench", "--backends", "torch:int3")
    assert result.code == 2
    assert "torch:bfloat16" in result.err

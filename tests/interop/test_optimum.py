"""Exports that Optimum made, in an environment of its own (`make .venv/optimum/installed`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import shell
from cuda_kernels import lacking
from odd_prompts import odd_strings
from tokenizer_layouts import LAYOUTS, TRANSFORMERS_5, write_layout

from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_export.clip_tokenizers import CHECKED
from mnemoscope_export.tokens import BundleTokenizer
from mnemoscope_runtime import Screener

HERE = Path(__file__).parent
PYTHON = Path(
    os.environ.get("OPTIMUM_PYTHON", HERE.parent.parent / ".venv" / "optimum" / "bin" / "python")
)
PROMPTS = ["a cat, sitting", "google icon of rocket", "eine Katze — 猫"]

pytestmark = pytest.mark.skipif(
    not PYTHON.exists() and "OPTIMUM_PYTHON" not in os.environ,
    reason="Optimum has an environment of its own: make .venv/optimum/installed",
)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optimum")
    made = subprocess.run(
        [PYTHON, HERE / "make_exports.py", folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_scores_are_those_of_the_pytorch_model(exports: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "bundle"
    result = shell("export", "--from-onnx", exports / kind / "onnx", out, "--noises", 2)
    assert result.code == 0, result.err
    assert "\nscreen: relative error " in result.err
    assert lacking(out) == set()
    model = StableDiffusion.load(exports / kind / "pytorch")
    with Screener.open(out) as screener:
        manifest = screener.bundle.manifest
        assert manifest.scheduler == model.scheduler_record()
        assert manifest.model.prediction_type == kind
        ids = model.tokenizer(PROMPTS, padding="max_length", return_tensors="np").input_ids
        assert np.array_equal(screener.tokenizer(PROMPTS), ids)
        bank = torch.from_numpy(screener.bundle.noise_bank())
        expected = magnitudes(model, PROMPTS, bank, steps=4).numpy()
        found = screener.first_step(PROMPTS)
        np.testing.assert_allclose(found, expected[..., 0], rtol=1e-4)
        np.testing.assert_allclose(screener.trajectory(PROMPTS, steps=4), expected, rtol=1e-4)


def test_ids_are_those_of_transformers_4(tmp_path: Path) -> None:
    names = [name for name in LAYOUTS if name not in TRANSFORMERS_5]
    for name in names:
        write_layout(name, tmp_path / name)
    read = subprocess.run(
        [PYTHON, HERE / "read_tokens.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    assert read.stdout.split()[-1] == CHECKED["transformers-4"]
    odd = odd_strings()
    for name in names:
        found = BundleTokenizer.from_files(tmp_path / name, longest=77)
        assert found.record.follows == "transformers-4"
        np.testing.assert_array_equal(found.clip()(odd), np.load(tmp_path / f"{name}.npy"))

"""Exports that Optimum made, in an environment of its own (`make .venv/optimum/installed`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import Run
from cuda_kernels import lacking
from odd_prompts import odd_strings
from tokenizer_layouts import LAYOUTS, TRANSFORMERS_5, write_layout

from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_export.bundle_tokenizer import BundleTokenizer
from mnemoscope_export.clip_tokenizers import CHECKED
from mnemoscope_runtime import Screener

HERE = Path(__file__).parent
PYTHON = Path(
    os.environ.get("OPTIMUM_PYTHON", HERE.parent.parent / ".venv" / "optimum" / "bin" / "python")
)
PROMPTS = ["a cat, sitting", "google icon of rocket", "eine Katze — 猫"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists() and "OPTIMUM_PYTHON" not in os.environ,
        reason="Optimum has an environment of its own: make .venv/optimum/installed",
    ),
]


OLD = [name for name in LAYOUTS if name not in TRANSFORMERS_5]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `in_optimum.py` makes: most of the time it takes is its imports."""
    folder = tmp_path_factory.mktemp("optimum")
    for name in OLD:
        write_layout(name, folder / "layouts" / name)
    run = subprocess.run(
        [PYTHON, HERE / "in_optimum.py", folder], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == CHECKED["transformers-4"]
    return folder


def test_scores_are_those_of_the_pytorch_model(made: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "bundle"
    result = run("export", "--from-onnx", made / "onnx", out, "--noises", 2)
    assert result.code == 0, result.err
    assert "\nscreen: relative error " in result.err
    assert lacking(out) == set()
    model = StableDiffusion.load(made / "pytorch")
    with Screener.open(out) as screener:
        manifest = screener.bundle.manifest
        assert manifest.scheduler == model.scheduler_record()
        assert manifest.model.prediction_type == "v_prediction"
        ids = model.tokenizer(PROMPTS, padding="max_length", return_tensors="np").input_ids
        assert np.array_equal(screener.tokenizer(PROMPTS), ids)
        bank = torch.from_numpy(screener.bundle.noise_bank())
        expected = magnitudes(model, PROMPTS, bank, steps=2).numpy()
        found = screener.first_step(PROMPTS)
        np.testing.assert_allclose(found, expected[..., 0], rtol=1e-4)
        np.testing.assert_allclose(screener.trajectory(PROMPTS, steps=2), expected, rtol=1e-4)


@pytest.mark.parametrize("name", OLD)
def test_ids_are_those_of_transformers_4(made: Path, name: str) -> None:
    found = BundleTokenizer.from_files(made / "layouts" / name, longest=77)
    assert found.record.follows == "transformers-4"
    wanted = np.load(made / "layouts" / f"{name}.npy")
    np.testing.assert_array_equal(found.reader()(odd_strings()), wanted)

"""Models built from configs with random weights, and their bundles; made once a session."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# a second thread has nothing to do in models this small, and waits for the first at every operator
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from pipelines import build_pipeline

from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle

pytest_plugins = [
    "attack_support",
    "cli_support",
    "fake_gpu",
    "mitigate_support",
    "prompt_support",
    "screening_support",
]
__all__ = ["build_pipeline"]


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline for each prediction type."""
    folder = tmp_path_factory.mktemp("models") / request.param
    build_pipeline(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_dir: Path) -> StableDiffusion:
    return StableDiffusion.load(model_dir)


@pytest.fixture(scope="session")
def bundle_dir(model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of `model` with three noises."""
    out = tmp_path_factory.mktemp("bundles") / model.prediction_type
    export_bundle(model, out, ExportOptions(noises=3, seed=7))
    return out

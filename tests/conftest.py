"""Models built from configs with random weights, and their bundles; made once a machine."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# a second thread has nothing to do in models this small, and waits for the first at every operator
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipelines import build_pipeline

from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, export_bundle

if TYPE_CHECKING:
    from shared import Shared

pytest_plugins = [
    "attack_support",
    "cli_support",
    "fake_gpu",
    "engine_support",
    "mitigate_support",
    "prompt_support",
    "screening_support",
    "shared",
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
def bundle_dir(model: StableDiffusion, shared: Shared) -> Path:
    """The export of `model` with three noises."""
    options = ExportOptions(noises=3, seed=7)
    return shared(f"bundle/{model.prediction_type}", lambda out: export_bundle(model, out, options))


@pytest.fixture(scope="session")
def float16_dir(model: StableDiffusion, shared: Shared) -> Path:
    """The export of `model` in float16, with taps and a graph that stops at the last one."""
    options = ExportOptions(
        noises=3, seed=7, taps="auto", until="up_blocks.1.resnets.0", precision="float16",
        tolerance=Tolerance(0.02),
    )  # fmt: skip
    return shared(
        f"float16/{model.prediction_type}", lambda out: export_bundle(model, out, options)
    )

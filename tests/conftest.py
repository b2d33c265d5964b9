"""Models built from configs with random weights, and their bundles; made once a machine."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# a second thread has nothing to do in models this small, and waits for the first at every operator
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# under these, typer and rich colour what is no terminal
for _name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

# what tests build is not this user's: one cache for all of a run, also of its processes
if "MNEMOSCOPE_CACHE" not in os.environ:
    os.environ["MNEMOSCOPE_CACHE"] = tempfile.mkdtemp(prefix="mnemoscope-cache-")
    atexit.register(shutil.rmtree, os.environ["MNEMOSCOPE_CACHE"], ignore_errors=True)

# torch and diffusers are imported by who needs them: who starts the workers does not
if TYPE_CHECKING:
    from shared import Shared

    from mnemoscope_export import StableDiffusion

pytest_plugins = [
    "attack_support",
    "cli_support",
    "example_support",
    "exporter",
    "fake_gpu",
    "engine_support",
    "one_thread",
    "operators",
    "prompt_support",
    "screening_support",
    "shared",
    "signature_support",
    "slow",
    "walked",
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: a test that waits, as for a server, leaves its core to others."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", params=["epsilon"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline that predicts noise; `both_models` asks for one of velocities as well."""
    from pipelines import build_pipeline

    folder = tmp_path_factory.mktemp("models") / request.param
    build_pipeline(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_dir: Path) -> StableDiffusion:
    from mnemoscope_export import StableDiffusion

    return StableDiffusion.load(model_dir)


@pytest.fixture(scope="session")
def bundle_dir(model: StableDiffusion, shared: Shared) -> Path:
    """The export of `model` with three noises; that of velocities at another timestep and size."""
    from predictions import VARIED

    from mnemoscope_export import ExportOptions, export_bundle

    options = ExportOptions(noises=3, seed=7, **VARIED[model.prediction_type])
    return shared(f"bundle/{model.prediction_type}", lambda out: export_bundle(model, out, options))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """One of a single level, which is exported in half the time."""
    return _of_one_level(tmp_path_factory, resnets=1)


@pytest.fixture(scope="session")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """Likewise, but with two resnets on the way down as Stable Diffusion has them."""
    return _of_one_level(tmp_path_factory, resnets=2)


def _of_one_level(tmp_path_factory: pytest.TempPathFactory, resnets: int) -> StableDiffusion:
    from one_block import one_block
    from pipelines import build_pipeline

    from mnemoscope_export import StableDiffusion

    folder = tmp_path_factory.mktemp("models") / "small"
    unet = one_block(resnets=resnets)
    build_pipeline("epsilon", unet=unet, text_layers=1).save_pretrained(folder)
    return StableDiffusion.load(folder)


@pytest.fixture(scope="session")
def open_dir(open_model: StableDiffusion, shared: Shared) -> Path:
    """One for embeddings of any length, with taps and a graph that stops at the last one."""
    from mnemoscope_export import ExportOptions, export_bundle

    options = ExportOptions(
        noises=3, seed=7, taps="auto", until="up_blocks.0.resnets.1", any_length=True
    )
    return shared("open", lambda out: export_bundle(open_model, out, options))


@pytest.fixture(scope="session")
def float16_dir(small_model: StableDiffusion, shared: Shared) -> Path:
    """The export of `small_model` in float16, with taps."""
    from mnemoscope_export import ExportOptions, Tolerance, export_bundle

    taps = ["up_blocks.0.resnets.0", "up_blocks.0.resnets.1"]
    options = ExportOptions(
        noises=3, seed=7, taps=taps, precision="float16", tolerance=Tolerance(0.02)
    )
    return shared("float16", lambda out: export_bundle(small_model, out, options))

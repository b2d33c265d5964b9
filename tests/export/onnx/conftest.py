"""An export as Optimum makes it, and the bundle that is made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from onnx_exports import OPTIONS, write_configs, write_text_encoder, write_unet
from shared import Shared

from mnemoscope_export import StableDiffusion, export_onnx


@pytest.fixture(scope="session")
def onnx_dir(model: StableDiffusion, model_dir: Path, shared: Shared) -> Path:
    def make(folder: Path) -> None:
        write_configs(model_dir, folder)
        write_text_encoder(model, folder / "text_encoder" / "model.onnx")
        write_unet(model, folder / "unet" / "model.onnx")

    return shared(f"onnx/{model.prediction_type}/optimum-made", make)


@pytest.fixture(scope="session")
def onnx_bundle(model: StableDiffusion, onnx_dir: Path, shared: Shared) -> Path:
    return shared(
        f"onnx/{model.prediction_type}/bundle", lambda out: export_onnx(onnx_dir, out, OPTIONS)
    )


@pytest.fixture
def copy(onnx_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(onnx_dir, tmp_path / "copy")
    return tmp_path / "copy"

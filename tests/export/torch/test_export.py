from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cuda_kernels import lacking
from predictions import VARIED, both_models

from mnemoscope import BackendError
from mnemoscope_export import StableDiffusion, noise_bank
from mnemoscope_export.torch.graphs import to_onnx
from mnemoscope_runtime import Bundle, Screener


@both_models
def test_bundle_tells_where_it_comes_from(bundle_dir: Path, model: StableDiffusion) -> None:
    bundle = Bundle.open(bundle_dir)
    manifest = bundle.manifest
    assert manifest.model.weights_sha256 == model.weights_sha256()
    assert manifest.model.prediction_type == model.prediction_type
    varied = VARIED[model.prediction_type]
    shape = (3, 4, *varied.get("latent_size", (8, 8)))
    assert manifest.timestep == varied.get("timestep", 981)
    assert manifest.guidance == 7.5
    assert manifest.noise_bank.shape == shape
    assert set(manifest.graphs) == {"screen", "step", "text_encoder"}
    assert manifest.tools["torch"]
    assert np.array_equal(bundle.noise_bank(), noise_bank(3, shape[1:], seed=7).numpy())
    assert set(manifest.parity) == set(manifest.graphs)
    assert all(figures["max_relative_error"] <= 1e-4 for figures in manifest.parity.values())


def test_files_are_just_what_the_manifest_lists(bundle_dir: Path) -> None:
    present = {p.relative_to(bundle_dir).as_posix() for p in bundle_dir.rglob("*") if p.is_file()}
    assert present == {*Bundle.open(bundle_dir).manifest.files, "manifest.json"}


def test_weights_are_stored_once(bundle_dir: Path, model: StableDiffusion) -> None:
    parameters = [*model.unet.parameters(), *model.text_encoder.parameters()]
    size = sum(p.numel() * 4 for p in parameters)
    stored = (bundle_dir / "model.weights").stat().st_size
    assert stored < 1.6 * size  # three graphs, folded constants of the small model included


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_graphs_are_plain_onnx(bundle_dir: Path, graph: str) -> None:
    proto = onnx.load(bundle_dir / f"{graph}.onnx", load_external_data=False)
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    assert not any(node.metadata_props for node in proto.graph.node)
    onnx.checker.check_model(bundle_dir / f"{graph}.onnx")


def test_every_operator_runs_on_cuda(bundle_dir: Path) -> None:
    assert lacking(bundle_dir) == set()


def test_batches_stay_open(bundle_dir: Path) -> None:
    """More samples than diffusers' own upsampling would let an exported graph take."""
    with Screener.open(bundle_dir, threads=1) as screener:
        many = screener.backend.load(screener.bundle, "screen")
        ids = np.tile(np.arange(77, dtype=np.int64), (30, 1))
        values = many({"input_ids": ids, "noise_index": np.arange(3)}, ("magnitude",))[0]
    assert values.shape == (30, 3)
    np.testing.assert_allclose(values, np.tile(values[:1], (30, 1)), rtol=1e-5)


class Halves(torch.nn.Module):
    """A graph whose batch becomes static while tracing."""

    inputs, outputs = ("x",), ("y",)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) + 1

    def example(self, _: object) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(2, 3),)

    def dynamic(self) -> tuple[dict[int, object], ...]:
        return ({0: torch.export.Dim("batch")},)


def test_static_batches_are_refused(model: StableDiffusion) -> None:
    with pytest.raises(BackendError, match="dimension 0 of x became static"):
        to_onnx(Halves(), model)  # type: ignore[arg-type]

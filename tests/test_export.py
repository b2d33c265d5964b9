from __future__ import annotations

import copy
import errno
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cuda_kernels import lacking

import mnemoscope_export.export as export_module
from mnemoscope import BackendUnavailable, ExportError, InputError, ParityError
from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, export_bundle, noise_bank
from mnemoscope_export.graphs import TextEncoderGraph, to_onnx
from mnemoscope_runtime import Bundle, Screener


def test_bundle_tells_where_it_comes_from(bundle_dir: Path, model: StableDiffusion) -> None:
    bundle = Bundle.open(bundle_dir)
    manifest = bundle.manifest
    assert manifest.model.weights_sha256 == model.weights_sha256()
    assert manifest.model.prediction_type == model.prediction_type
    assert manifest.timestep == 981
    assert manifest.guidance == 7.5
    assert manifest.noise_bank.shape == (3, 4, 8, 8)
    assert set(manifest.graphs) == {"screen", "step", "text_encoder"}
    assert manifest.tools["torch"]
    assert np.array_equal(bundle.noise_bank(), noise_bank(3, (4, 8, 8), seed=7).numpy())
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


def test_existing_directories_are_safe(bundle_dir: Path, model: StableDiffusion) -> None:
    before = (bundle_dir / "manifest.json").read_bytes()
    with pytest.raises(ExportError, match="exists already"):
        export_bundle(model, bundle_dir)
    assert (bundle_dir / "manifest.json").read_bytes() == before


def test_overwrite_replaces_bundles_only(tmp_path: Path, model: StableDiffusion) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is no bundle"):
        export_bundle(model, tmp_path, ExportOptions(overwrite=True))
    assert (tmp_path / "thesis.txt").exists()


@pytest.fixture
def graphs_at_hand(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage the graphs of `bundle_dir` instead of exporting them again."""

    def stage(*args: object) -> object:
        folder = next(each for each in args if isinstance(each, Path))
        for name in ("screen.onnx", "step.onnx", "text_encoder.onnx", "model.weights"):
            shutil.copy(bundle_dir / name, folder)
        manifest = Bundle.open(bundle_dir).manifest
        return manifest.graphs, manifest.flops

    monkeypatch.setattr(export_module, "_write_graphs", stage)


@pytest.mark.usefixtures("graphs_at_hand")
def test_overwrite_replaces_a_bundle(
    tmp_path: Path, bundle_dir: Path, model: StableDiffusion
) -> None:
    out = tmp_path / "out"
    shutil.copytree(bundle_dir, out)
    options = ExportOptions(noises=3, seed=7, guidance=3.0, overwrite=True)
    export_bundle(model, out, options)
    assert Bundle.open(out).manifest.guidance == 3.0
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("graphs_at_hand")
def test_a_bundle_that_disagrees_is_not_written(tmp_path: Path, model: StableDiffusion) -> None:
    options = ExportOptions(noises=3, seed=7, tolerance=Tolerance(magnitude=1e-12))
    with pytest.raises(ParityError, match="Nothing was written"):
        export_bundle(model, tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("graphs_at_hand")
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_graphs_of_other_weights_do_not_pass(
    tmp_path: Path, model: StableDiffusion, part: str
) -> None:
    other = replace(model, **{part: copy.deepcopy(getattr(model, part))})
    for weight in getattr(other, part).parameters():
        weight.mul_(1.01)
    with pytest.raises(ParityError, match="differs from PyTorch"):
        export_bundle(other, tmp_path / "out", ExportOptions(noises=3, seed=7))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["save", "manifest", "crash"])
def test_nothing_is_left_of_a_failed_export(
    tmp_path: Path, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object, **__: object) -> None:
        raise full if stage != "crash" else KeyboardInterrupt

    target = {"save": (export_module.np, "save"), "manifest": (export_module, "file_records")}
    monkeypatch.setattr(*target.get(stage, (export_module, "check_parity")), fail)
    monkeypatch.setattr(export_module, "_write_graphs", lambda *_: ({}, {}))
    expected = KeyboardInterrupt if stage == "crash" else ExportError
    with pytest.raises(expected) as caught:
        export_bundle(model, tmp_path / "out", ExportOptions(noises=1))
    if stage != "crash":
        assert "No space left" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("stage", ["graphs", "tokenizer"])
def test_nothing_is_left_where_files_cannot_grow(
    tmp_path: Path, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The system itself refuses the write, wherever it comes from, as on a full disk."""
    import resource

    if stage == "tokenizer":
        monkeypatch.setattr(export_module, "_write_graphs", lambda *_: ({}, {}))
    text = TextEncoderGraph(model)  # the quickest to export; its weights are too much
    monkeypatch.setattr(export_module, "_makers", lambda *_, **__: {"text_encoder": lambda: text})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"File too large.*Nothing was left there; free some"):
            export_bundle(model, tmp_path / "out", ExportOptions(noises=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_parent(tmp_path: Path, model: StableDiffusion) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_bundle(model, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    "options",
    [
        {"noises": 0},
        {"noises": 65},
        {"inference_steps": 0},
        {"inference_steps": 1000},
        {"guidance": float("nan")},
        {"seed": -1},
        {"seed": 2**63},
        {"precision": "int8"},
    ],
)
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ExportOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noises": "4"}, r"noises is '4' \(str\), not a whole number"),
        ({"noises": None}, r"noises is None \(NoneType\), not a whole number"),
        ({"seed": 1.5}, r"seed is 1\.5 \(float\), not a whole number"),
        ({"guidance": "7.5"}, r"guidance is '7\.5' \(str\), not a number"),
        ({"budget": True}, r"budget is True \(bool\), not a number"),
        ({"overwrite": "no"}, r"overwrite is 'no' \(str\), not True or False"),
    ],
)
def test_options_of_a_wrong_type(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ExportOptions(**options)


def test_the_oracle_is_looked_for_first(
    tmp_path: Path, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("graphs were exported all the same")

    monkeypatch.setattr(export_module, "_write_graphs", never)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match=r"in bfloat16 are checked on .*'openvino'.*pip"):
        export_bundle(model, tmp_path / "out", ExportOptions(precision="bfloat16"))
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(ExportError, match="dimension 0 of x became static"):
        to_onnx(Halves(), model)  # type: ignore[arg-type]

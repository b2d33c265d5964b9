"""A bundle appears whole or not at all, and only where nothing else is."""

from __future__ import annotations

import copy
import errno
import shutil
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import mnemoscope_export.torch.export as contents
from mnemoscope import BackendUnavailable, ExportError, ParityError
from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, export_bundle, writing
from mnemoscope_export.torch.graphs import TextEncoderGraph
from mnemoscope_runtime import Bundle


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

    monkeypatch.setattr(writing, "_write_graphs", stage)


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

    target = {"save": (writing.np, "save"), "manifest": (writing, "file_records")}
    monkeypatch.setattr(*target.get(stage, (writing, "check_parity")), fail)
    monkeypatch.setattr(writing, "_write_graphs", lambda *_: ({}, {}))
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
        monkeypatch.setattr(writing, "_write_graphs", lambda *_: ({}, {}))
    text = TextEncoderGraph(model)  # the quickest to export; its weights are too much
    monkeypatch.setattr(contents, "_graphs", lambda *_, **__: {"text_encoder": lambda: text})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"File too large.*Nothing new was left"):
            export_bundle(model, tmp_path / "out", ExportOptions(noises=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_parent(tmp_path: Path, model: StableDiffusion) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_bundle(model, tmp_path / "file" / "out")


def test_the_oracle_is_looked_for_first(
    tmp_path: Path, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("graphs were exported all the same")

    monkeypatch.setattr(writing, "_write_graphs", never)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match=r"in bfloat16 are checked on .*'openvino'.*pip"):
        export_bundle(model, tmp_path / "out", ExportOptions(precision="bfloat16"))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_loaded_for_it_is_let_go_before_graphs_run(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Callable[[], object]] = []

    def load() -> StableDiffusion:
        model = StableDiffusion.load(model_dir)
        alive.append(weakref.ref(model.unet))
        return model

    def check(*_: object) -> None:
        assert [each() for each in alive] == [None]
        raise ParityError("seen")

    monkeypatch.setattr(writing, "_write_graphs", lambda *_: ({}, {}))
    monkeypatch.setattr(writing, "check_parity", check)
    with pytest.raises(ParityError, match="seen"):
        export_bundle(load, tmp_path / "out", ExportOptions(noises=1, precision="float16"))

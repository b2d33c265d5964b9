from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cuda_kernels import lacking
from onnx_exports import OPTIONS, edit, external, write_text_encoder, write_unet
from predictions import both_models, of_velocities

from mnemoscope import ExportError, InputError, ParityError
from mnemoscope_export import (
    ExportOptions,
    StableDiffusion,
    export_onnx,
    magnitudes,
    noise_bank,
)
from mnemoscope_export.onnx import export as export_module
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_runtime import Bundle, Screener

PROMPTS = ["a cat, sitting", "google icon of rocket", "eine Katze — 猫"]
ONE = ExportOptions(noises=1)


def scores(bundle: Path, model: StableDiffusion, rtol: float) -> None:
    """The bundle measures what PyTorch measures, at the first step and along the way."""
    with Screener.open(bundle) as screener:
        bank = torch.from_numpy(screener.bundle.noise_bank())
        expected = magnitudes(model, PROMPTS, bank, steps=3).numpy()
        np.testing.assert_allclose(screener.first_step(PROMPTS), expected[..., 0], rtol=rtol)
        np.testing.assert_allclose(screener.trajectory(PROMPTS, steps=3), expected, rtol=rtol)


@both_models
def test_scores_are_those_of_the_pytorch_model(onnx_bundle: Path, model: StableDiffusion) -> None:
    scores(onnx_bundle, model, rtol=1e-4)


def test_the_bundle_is_like_one_made_by_pytorch(onnx_bundle: Path, bundle_dir: Path) -> None:
    ours, theirs = Bundle.open(onnx_bundle), Bundle.open(bundle_dir)
    for graph in ("text_encoder", "step", "screen"):
        found, expected = (
            onnx.load(path / f"{graph}.onnx", load_external_data=False).graph
            for path in (onnx_bundle, bundle_dir)
        )
        assert signature(found.input) == signature(expected.input)
        assert signature(found.output) == signature(expected.output)
        assert ours.manifest.flops[graph] == pytest.approx(theirs.manifest.flops[graph], rel=0.01)
    assert set(ours.manifest.files) == set(theirs.manifest.files)
    assert np.array_equal(ours.noise_bank(), theirs.noise_bank())
    for field in ("scheduler", "timestep", "guidance", "noise_bank", "precision"):
        assert getattr(ours.manifest, field) == getattr(theirs.manifest, field)
    found, expected = ours.manifest.tokenizer, theirs.manifest.tokenizer
    assert (found.length, found.pad_token, found.rows) == (77, "<|endoftext|>", 1924)
    assert found.rows == expected.rows
    # Optimum needs transformers 4
    assert (found.follows, expected.follows) == ("transformers-4", "transformers-5")
    assert ours.manifest.model.id == "optimum-made"
    assert ours.manifest.model.prediction_type == theirs.manifest.model.prediction_type
    assert len(ours.manifest.model.weights_sha256) == 64
    assert ours.manifest.tools["unet/model.onnx"].startswith("pytorch ")


def signature(values: object) -> list[tuple[str, int, list[object]]]:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_value or bool(dim.dim_param) for dim in value.type.tensor_type.shape.dim],
        )
        for value in values  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_graphs_are_plain_onnx(onnx_bundle: Path, graph: str) -> None:
    onnx.checker.check_model(onnx_bundle / f"{graph}.onnx")
    nodes = onnx.load(onnx_bundle / f"{graph}.onnx", load_external_data=False).graph.node
    assert {node.domain for node in nodes} == {""}


def test_every_operator_runs_on_cuda(onnx_bundle: Path) -> None:
    assert lacking(onnx_bundle) == set()


def test_weights_are_stored_once(onnx_bundle: Path, model: StableDiffusion) -> None:
    parameters = [*model.unet.parameters(), *model.text_encoder.parameters()]
    size = sum(p.numel() * 4 for p in parameters)
    assert (onnx_bundle / "model.weights").stat().st_size < 1.6 * size


def test_batches_stay_open(onnx_bundle: Path) -> None:
    with Screener.open(onnx_bundle, threads=1) as screener:
        engine = screener.backend.load(screener.bundle, "screen")
        ids = np.tile(screener.tokenizer(["a"]), (30, 1))
        values = engine({"input_ids": ids, "noise_index": np.array([2, 0])}, ("magnitude",))[0]
    assert values.shape == (30, 2)
    np.testing.assert_allclose(values, np.tile(values[:1], (30, 1)), rtol=1e-5)


@of_velocities
def test_neither_torch_nor_diffusers_are_needed(onnx_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'onnxscript', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from mnemoscope.cli import main\n"
        "main()"
    )
    command = ["export", "--from-onnx", onnx_dir, tmp_path / "out", "--noises", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}  {Bundle.open(tmp_path / 'out').id[:12]}\n"
    for graph in ("text_encoder", "step", "screen"):
        assert f"\n{graph}: relative error " in done.stderr


@of_velocities
@pytest.mark.parametrize(
    ("opset", "timestep", "ids"),
    [
        (14, torch.tensor([1]), torch.int32),
        (18, torch.tensor(1), torch.int64),
    ],
    ids=["14-int64-vector-int32", "18-int64-scalar"],
)
def test_other_ways_to_export(
    copy: Path,
    tmp_path: Path,
    model: StableDiffusion,
    opset: int,
    timestep: torch.Tensor,
    ids: torch.dtype,
) -> None:
    write_unet(model, copy / "unet" / "model.onnx", timestep=timestep, opset=opset)
    write_text_encoder(model, copy / "text_encoder" / "model.onnx", ids=ids, opset=opset)
    bundle = export_onnx(copy, tmp_path / "out", ONE)
    assert bundle.manifest.opset == opset
    assert lacking(bundle.path) == set()
    scores(tmp_path / "out", model, rtol=1e-4)


@of_velocities
def test_half_precision(copy: Path, tmp_path: Path, model: StableDiffusion) -> None:
    half = torch.float16
    write_unet(model, copy / "unet" / "model.onnx", dtype=half, timestep=torch.tensor(1.0).half())
    with pytest.raises(InputError, match="is in float16, and an ONNX export stays in"):
        export_onnx(copy, tmp_path / "no", ExportOptions(precision="float32"))
    bundle = export_onnx(copy, tmp_path / "out", ONE)
    assert bundle.manifest.precision == "float16"
    assert lacking(bundle.path) == set()
    outputs = onnx.load(tmp_path / "out" / "step.onnx", load_external_data=False).graph.output
    assert {o.type.tensor_type.elem_type for o in outputs} == {onnx.TensorProto.FLOAT}
    scores(tmp_path / "out", model, rtol=2e-2)


@of_velocities
def test_weights_in_files_of_their_own(copy: Path, onnx_bundle: Path, tmp_path: Path) -> None:
    external(copy)
    bundle = export_onnx(copy, tmp_path / "out", OPTIONS)
    whole = Bundle.open(onnx_bundle).manifest
    assert bundle.manifest.model.weights_sha256 == whole.model.weights_sha256
    assert bundle.manifest.probes == whole.probes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def test_a_graph_that_disagrees_is_not_written(
    onnx_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_module.screen_graph

    def wrong(*args: object) -> object:
        return whole(*args[:6], 1.001, *args[7:])  # type: ignore[arg-type]

    monkeypatch.setattr(export_module, "screen_graph", wrong)
    with pytest.raises(ParityError, match=r"screen graph differs from the export by 1\.0e-03"):
        export_onnx(onnx_dir, tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == []


ADDED = ["<cat-toy>", "<x>", "<x>_1", "<x>_2"]


@pytest.fixture
def inverted(model: StableDiffusion) -> StableDiffusion:
    """The model with textual inversions, one of them of three vectors."""
    tokenizer, encoder = deepcopy(model.tokenizer), deepcopy(model.text_encoder)
    tokenizer.add_tokens(ADDED)
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return replace(model, tokenizer=tokenizer, text_encoder=encoder)


def add_tokens(folder: Path, layout: str) -> None:
    added = {token: 1924 + k for k, token in enumerate(ADDED)}
    if layout == "added_tokens.json":
        (folder / layout).write_text(json.dumps(added))
    else:
        decoder = {id: {"content": token, "special": False} for token, id in added.items()}
        edit(folder / "tokenizer_config.json", added_tokens_decoder=decoder)


@pytest.mark.parametrize("layout", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_without_embeddings_are_refused(
    copy: Path, tmp_path: Path, layout: str
) -> None:
    add_tokens(copy / "tokenizer", layout)
    with pytest.raises(ExportError, match=r"4 tokens beyond the text encoder's 1,924 embeddings"):
        export_onnx(copy, tmp_path / "no", ONE)


@of_velocities
def test_added_tokens_are_read_as_the_pipeline_reads_them(
    copy: Path, tmp_path: Path, inverted: StableDiffusion
) -> None:
    """Ids in every layout are compared with transformers' in test_clip_tokenizers."""
    add_tokens(copy / "tokenizer", "added_tokens_decoder")
    write_text_encoder(inverted, copy / "text_encoder" / "model.onnx")
    export_onnx(copy, tmp_path / "out", ONE)
    prompts = ["a <cat-toy>", "<x>, oil on canvas", "a<x>b", "a cat toy"]
    with Screener.open(tmp_path / "out") as screener:
        assert screener.bundle.manifest.tokenizer.rows == 1928
        bank = torch.from_numpy(screener.bundle.noise_bank())
        expected = magnitudes(inverted, prompts, bank, steps=1).numpy()
        np.testing.assert_allclose(screener.first_step(prompts), expected[..., 0], rtol=1e-4)


@of_velocities
def test_another_timestep_and_size(onnx_dir: Path, model: StableDiffusion, tmp_path: Path) -> None:
    options = ExportOptions(noises=2, seed=7, timestep=401, latent_size=(4, 6))
    manifest = export_onnx(onnx_dir, tmp_path / "out", options).manifest
    assert (manifest.timestep, manifest.noise_bank.shape) == (401, (2, 4, 4, 6))
    bank = noise_bank(2, (4, 4, 6), seed=7)
    with Screener.open(tmp_path / "out", threads=1) as screener:
        expected = measure_at(model, PROMPTS, bank, 401)[..., 0].numpy()
        np.testing.assert_allclose(screener.first_step(PROMPTS), expected, rtol=1e-4)
        expected = magnitudes(model, PROMPTS, bank, steps=2).numpy()
        np.testing.assert_allclose(screener.trajectory(PROMPTS, steps=2), expected, rtol=1e-4)
        assert screener.probe() < 1e-4

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_support import Run, failed
from cuda_kernels import lacking
from onnx_exports import write_configs, write_text_encoder, write_unet
from predictions import both_models
from shared import Shared

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
OPTIONS = ExportOptions(noises=3, seed=7)
ONE = ExportOptions(noises=1)


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


def test_weights_in_files_of_their_own(copy: Path, onnx_bundle: Path, tmp_path: Path) -> None:
    external(copy)
    bundle = export_onnx(copy, tmp_path / "out", OPTIONS)
    whole = Bundle.open(onnx_bundle).manifest
    assert bundle.manifest.model.weights_sha256 == whole.model.weights_sha256
    assert bundle.manifest.probes == whole.probes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def external(folder: Path) -> Path:
    path = folder / "unet" / "model.onnx"
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data")
    return path.with_name("model.onnx_data")


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


@pytest.mark.parametrize("layout", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_are_read_as_the_pipeline_reads_them(
    copy: Path, tmp_path: Path, inverted: StableDiffusion, layout: str
) -> None:
    added = {token: 1924 + k for k, token in enumerate(ADDED)}
    if layout == "added_tokens.json":
        (copy / "tokenizer" / layout).write_text(json.dumps(added))
    else:
        decoder = {id: {"content": token, "special": False} for token, id in added.items()}
        edit(copy / "tokenizer" / "tokenizer_config.json", added_tokens_decoder=decoder)
    with pytest.raises(ExportError, match=r"4 tokens beyond the text encoder's 1924 embeddings"):
        export_onnx(copy, tmp_path / "no", ONE)
    write_text_encoder(inverted, copy / "text_encoder" / "model.onnx")
    export_onnx(copy, tmp_path / "out", ONE)
    prompts = ["a <cat-toy>", "<x>, oil on canvas", "a<x>b", "a cat toy"]
    with Screener.open(tmp_path / "out") as screener:
        assert screener.bundle.manifest.tokenizer.rows == 1928
        bank = torch.from_numpy(screener.bundle.noise_bank())
        expected = magnitudes(inverted, prompts, bank, steps=1).numpy()
        np.testing.assert_allclose(screener.first_step(prompts), expected[..., 0], rtol=1e-4)


# what is refused


def test_other_numbers_of_tokens_are_refused(onnx_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluated for one number of tokens"):
        export_onnx(onnx_dir, tmp_path / "out", ExportOptions(any_length=True))
    with pytest.raises(InputError, match="There is no tokenizer 'slow'"):
        ExportOptions(tokenizer="slow")  # type: ignore[arg-type]


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def node_of_ort(folder: Path) -> None:
    model = onnx.load(folder / "unet" / "model.onnx")
    conv = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    conv.op_type, conv.domain = "QuickGelu", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, folder / "unet" / "model.onnx")


def change(part: str, how: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / part / "model.onnx"
        model = onnx.load(path)
        how(model)
        onnx.save(model, path)

    return apply


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("timestep_cond", onnx.TensorProto.FLOAT, ["b", 256])
    )


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def quantise(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = np.zeros(list(tensor.dims), np.int8)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def loop(model: onnx.ModelProto) -> None:
    empty = onnx.helper.make_graph([], "g", [], [])
    model.graph.node.insert(
        0, onnx.helper.make_node("If", ["c"], ["o"], then_branch=empty, else_branch=empty)
    )


def old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 11


def newer(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


def missing_data(folder: Path) -> None:
    external(folder).unlink()


def short_data(folder: Path) -> None:
    data = external(folder)
    data.write_bytes(data.read_bytes()[:-1000])


def foreign_data(folder: Path) -> None:
    external(folder)
    model = onnx.load(folder / "unet" / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../etc/passwd"
    (folder / "unet" / "model.onnx").write_bytes(model.SerializeToString())


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no unet": (lambda d: (d / "unet" / "model.onnx").unlink(), "unet/model.onnx does not exist"),
    "no such directory": (shutil.rmtree, "does not exist. Give the directory that Optimum"),
    "Stable Diffusion XL": (lambda d: (d / "text_encoder_2").mkdir(), "is Stable Diffusion XL"),
    "no scheduler": (lambda d: shutil.rmtree(d / "scheduler"), "scheduler_config.json cannot be"),
    "odd schedule": (
        lambda d: edit(d / "scheduler" / "scheduler_config.json", beta_schedule="sigmoid"),
        "scheduler_config.json: beta_schedule is 'sigmoid'",
    ),
    "predicts samples": (
        lambda d: edit(d / "scheduler" / "scheduler_config.json", prediction_type="sample"),
        "prediction_type is 'sample' (must be",
    ),
    "no size": (
        lambda d: edit(d / "unet" / "config.json", sample_size=None),
        "sample_size is null, so the size of its latents is not",
    ),
    "no tokenizer": (
        lambda d: (d / "tokenizer" / "merges.txt").unlink(),
        "needs tokenizer.json, or vocab.json and merges.txt",
    ),
    "damaged": (
        lambda d: (d / "unet" / "model.onnx").write_bytes(b"version https://git-lfs"),
        "model.onnx is no ONNX model",
    ),
    "other inputs": (change("unet", rename_input), "timestep_cond and gives out_sample; a Stable"),
    "fixed batch": (change("unet", fix_batch), "exported for batches of 2 only (sample)"),
    "quantised": (change("unet", quantise), "holds its weights in INT8"),
    "control flow": (change("unet", loop), "('If', named ''): its operator is not one that"),
    "old opset": (change("unet", old), "has opset 11, not 14 to 28"),
    "two opsets": (change("text_encoder", newer), "opset 17 and "),
    "ORT's own operators": (node_of_ort, "its operator is of 'com.microsoft'"),
    "missing weights": (missing_data, "model.onnx_data, which is missing"),
    "short weights": (short_data, "of 'model.onnx_data', which holds"),
    "weights elsewhere": (foreign_data, "which is no plain name of a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(copy: Path, tmp_path: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    spoil(copy)
    with pytest.raises(ExportError) as caught:
        export_onnx(copy, tmp_path / "out", OPTIONS)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] in (["copy"], [])


def test_taps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="so it has no taps"):
        export_onnx(tmp_path / "nothing", tmp_path / "out", ExportOptions(taps="auto"))


def test_the_command_line_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    result = run("export", "--from-onnx", tmp_path / "nothing", tmp_path / "out")
    assert (result.code, result.out) == (3, "")
    assert "text_encoder/model.onnx does not exist" in result.err
    assert "Traceback" not in result.err


def test_without_onnx(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("export", "--from-onnx", tmp_path, tmp_path / "out")
    failed(result, 3, "Exporting needs ONNX", "pip install 'mnemoscope[from-onnx]'")


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


def test_sizes_that_a_graph_does_not_take(
    copy: Path, model: StableDiffusion, tmp_path: Path
) -> None:
    options = ExportOptions(noises=1, latent_size=(4, 6))
    with pytest.raises(InputError, match="Give multiples of 2"):
        export_onnx(copy, tmp_path / "out", ExportOptions(noises=1, latent_size=3))
    write_unet(model, copy / "unet" / "model.onnx", resizes=False)
    with pytest.raises(ExportError, match=r"takes sample of .*8,8.* only, not of \(1, 4, 4, 6\)"):
        export_onnx(copy, tmp_path / "out", options)
    config = copy / "unet" / "config.json"
    fields = json.loads(config.read_bytes())
    del fields["block_out_channels"]
    config.write_text(json.dumps(fields))
    with pytest.raises(ExportError, match="has no block_out_channels"):
        export_onnx(copy, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_timesteps_that_were_not_trained_on(onnx_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on timesteps 0 to 999, not 1000"):
        export_onnx(onnx_dir, tmp_path / "out", ExportOptions(timestep=1000))

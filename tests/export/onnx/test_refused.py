"""Exports that no bundle is made of, and what is said of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_support import Run, failed
from onnx_exports import OPTIONS, edit, external, write_unet

from mnemoscope import ExportError, InputError
from mnemoscope_export import (
    ExportOptions,
    StableDiffusion,
    export_onnx,
)


def test_other_numbers_of_tokens_are_refused(onnx_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluated for one number of tokens"):
        export_onnx(onnx_dir, tmp_path / "out", ExportOptions(any_length=True))
    both = ExportOptions(any_length=True, taps="auto")
    with pytest.raises(InputError, match=r"it has no taps.*for one number of tokens"):
        export_onnx(onnx_dir, tmp_path / "out", both)
    with pytest.raises(InputError, match="There is no tokenizer 'slow'"):
        ExportOptions(tokenizer="slow")  # type: ignore[arg-type]


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
    "Stable Diffusion XL": (lambda d: (d / "text_encoder_2").mkdir(), "as Stable Diffusion XL"),
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
    assert (result.code, result.out) == (2, "")
    assert "text_encoder/model.onnx does not exist" in result.err
    assert "Traceback" not in result.err


def test_without_onnx(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("export", "--from-onnx", tmp_path, tmp_path / "out")
    failed(result, 3, "Exporting needs ONNX", "pip install -c constraints.txt '.[from-onnx]'")


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

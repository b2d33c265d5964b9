from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_support import Run, copied, failed, one_model
from cuda_kernels import lacking

from mnemoscope import InputError, ParityError, embedded
from mnemoscope.precision import compare
from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, export_bundle
from mnemoscope_export.gate import ORACLES
from mnemoscope_runtime import Bundle, ExportError, Screener
from mnemoscope_runtime.manifest import Precision

PROMPTS = ["a photo of a cat", "icon of rocket", "日本", "an old master, oil on canvas " * 9]


def test_equal_scores() -> None:
    scores = np.array([3.0, *[1.0, 2.0] * 50])
    found = compare(scores, scores, np.arange(101) < 1)
    assert (found.median_error, found.largest_error, found.prompts) == (0, 0, 101)
    assert found.rank_correlation == pytest.approx(1)
    assert found.auc == found.tpr == (1.0, 1.0)
    found.check()


def test_rank_correlation_is_spearmans() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    other = np.array([2.0, 1.0, 4.0, 3.0, 500.0])
    found = compare(scores, other, np.zeros(5, bool))
    assert found.rank_correlation == pytest.approx(0.8)  # 1 - 6 * 4 / (5 * 24)
    assert (found.auc, found.tpr) == (None, None)
    assert found.largest_error == pytest.approx(99)


@pytest.mark.parametrize("positives", [0, 1])
def test_too_few_prompts_to_judge(positives: int) -> None:
    scores = np.ones(99 + positives)
    found = compare(scores, scores, np.arange(len(scores)) < positives)
    assert found.tpr is None
    with pytest.raises(InputError, match="100 others or more"):
        found.check()


def test_a_lower_tpr_is_refused() -> None:
    memorized = np.arange(200) < 100
    scores = np.where(memorized, 2.0, 1.0)
    other = scores.copy()
    other[0] = 0.5
    found = compare(scores, other, memorized)
    assert found.tpr == (1.0, 0.99)
    with pytest.raises(ParityError, match=r"falls from 1\.000 to 0\.990"):
        found.check()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_scores(count: int) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        compare(np.ones(count), np.ones(count), np.ones(count, bool))
    with pytest.raises(InputError, match="cannot be compared"):
        compare(np.ones(3), np.ones(2), np.ones(3, bool))


@one_model
def test_float16(float16_dir: Path, bundle_dir: Path) -> None:
    check(float16_dir, bundle_dir, "float16", onnx.TensorProto.FLOAT16, 0.02)


@one_model
def test_bfloat16(model: StableDiffusion, bundle_dir: Path, tmp_path: Path) -> None:
    # random weights hardly heed the prompt, so rounding weighs more than in a trained model
    tolerance = Tolerance(magnitude=0.2)
    options = ExportOptions(noises=3, seed=7, precision="bfloat16", tolerance=tolerance)
    export_bundle(model, tmp_path / "out", options)
    check(tmp_path / "out", bundle_dir, "bfloat16", onnx.TensorProto.BFLOAT16, 0.2)


def check(
    folder: Path, bundle_dir: Path, precision: Precision, kind: int, tolerance: float
) -> None:
    """The bundle computes in `precision`, and says what `bundle_dir` says but for rounding."""
    manifest = Bundle.open(folder).manifest
    assert manifest.precision == precision
    assert lacking(folder) == set()
    full = Bundle.open(bundle_dir).manifest.files["model.weights"].bytes
    assert manifest.files["model.weights"].bytes < 0.6 * full
    for graph in manifest.graphs.keys() - {"text_encoder"}:
        loaded = onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph
        large = [w for w in loaded.initializer if np.prod(w.dims) > 1024]
        assert {w.data_type for w in large if w.name.startswith("unet")} == {kind}
        floats = {v.type.tensor_type.elem_type for v in (*loaded.input, *loaded.output)}
        assert floats <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    with (
        Screener.open(folder, backend=ORACLES[precision], threads=1) as low,
        Screener.open(bundle_dir, threads=1) as full32,
    ):
        expected = full32.first_step(PROMPTS)
        np.testing.assert_allclose(low.first_step(PROMPTS), expected, rtol=tolerance)
        assert 1e-6 < low.probe() < tolerance


@one_model
def test_only_float32_models_are_exported(model: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose the precision in the options"):
        export_bundle(model.to(torch.float16), tmp_path / "out")


@one_model
def test_command(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    files = []
    for name in ("positives", "benign"):
        file = tmp_path / f"{name}.txt"
        file.write_text("\n".join(f"{name} {number}" for number in range(100)))
        files += [f"--{name}", file]
    copy = copied(bundle_dir, tmp_path / "copy")
    args = ("parity", bundle_dir, "--reference", copy, *files, "--threads", 1)
    result = run(*args, "--json", "--force")
    assert result.code == 0
    assert result.err.splitlines() == [f"note: {each}: 100 prompts." for each in files[1::2]]
    found = json.loads(result.out)
    assert (found["prompts"], found["largest_error"]) == (200, 0)
    assert "rank correlation  1.000000" in run(*args).out
    other = ("parity", bundle_dir, "--reference", embedded.BUNDLE, *files, "--noises", 1)
    failed(run(*other), 2, "exported from other weights than", "pass --force")
    (tmp_path / "benign.txt").write_text("a\nb\n")
    few = run(*args)  # says what it measured all the same
    assert (few.code, "needs memorised prompts and 100 others or more" in few.err) == (2, True)
    assert "AUC" in few.out
    assert run(*args, "--force").code == 0
    (tmp_path / "benign.txt").write_text("a\npositives 3\n")
    failed(run(*args), 2, "in both lists, such as 'positives 3'")
    (tmp_path / "positives.txt").write_text("\n")
    failed(run(*args), 2, "holds no prompts")


def test_nothing_is_compared_with_itself(run: Run, tmp_path: Path) -> None:
    alone = "would be compared with itself. Give a BUNDLE of another precision, or a --backend"
    failed(run("parity"), 2, "onnxruntime on", alone)
    failed(run("parity", tmp_path, "--reference", tmp_path / "a" / ".."), 2, alone)
    twice = ("--backend", "openvino", "--reference-backend", "openvino")
    failed(run("parity", *twice), 2, "openvino on", alone)

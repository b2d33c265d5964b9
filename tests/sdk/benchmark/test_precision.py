from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_support import Run, copied, failed
from cuda_kernels import lacking
from graph_support import kinds

from mnemoscope import InputError, ParityError, embedded
from mnemoscope.benchmark.precision import compare
from mnemoscope_export import StableDiffusion, export_bundle, magnitudes
from mnemoscope_export.gate import CHECKED_ON
from mnemoscope_runtime import Bundle, ExportError, Screener

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


@pytest.mark.parametrize(("count", "fits"), [(199, False), (200, True), (201, True)])
@pytest.mark.parametrize("before", [0, 3])
def test_half_a_point_of_tpr_may_be_lost(count: int, fits: bool, before: int) -> None:
    memorized = np.arange(count + 100) < count
    scores = np.where(memorized, 2.0, 1.0)
    scores[:before] = 0.5
    other = scores.copy()
    other[before] = 0.5
    found = compare(scores, other, memorized)
    if fits:
        found.check()
    else:
        with pytest.raises(ParityError, match=r"more than 0\.005"):
            found.check()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_scores(count: int) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        compare(np.ones(count), np.ones(count), np.ones(count, bool))
    with pytest.raises(InputError, match="cannot be compared"):
        compare(np.ones(3), np.ones(2), np.ones(3, bool))


def test_float16(float16_dir: Path, small_model: StableDiffusion) -> None:
    """It says what PyTorch says in float32 but for rounding. bfloat16: in test_pixart.py."""
    manifest = Bundle.open(float16_dir).manifest
    assert manifest.precision == "float16"
    assert lacking(float16_dir) == set()
    parts = small_model.unet, small_model.text_encoder
    full = sum(4 * each.numel() for part in parts for each in part.parameters())
    assert manifest.files["model.weights"].bytes < 0.6 * full
    for graph in manifest.graphs.keys() - {"text_encoder"}:
        assert kinds(float16_dir / f"{graph}.onnx") == {onnx.TensorProto.FLOAT16}
    with Screener.open(float16_dir, backend=CHECKED_ON["float16"], threads=1) as low:
        bank = torch.from_numpy(low.bundle.noise_bank())
        expected = magnitudes(small_model, PROMPTS, bank)[..., 0].numpy()
        np.testing.assert_allclose(low.first_step(PROMPTS), expected, rtol=0.02)
        assert 1e-6 < low.probe() < 0.02


def test_only_float32_models_are_exported(model: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose the precision in the options"):
        export_bundle(model.to(torch.float16), tmp_path / "out")


def test_command(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    files = []
    for name in ("positives", "benign"):
        file = tmp_path / f"{name}.txt"
        file.write_text("\n".join(f"{name} {number}" for number in range(100)))
        files += [f"--{name}", file]
    copy = copied(bundle_dir, tmp_path / "copy")
    args = ("parity", bundle_dir, "--reference", copy, *files, "--threads", 1, "--noises", 1)
    result = run(*args, "--format", "json", "--force")
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
    failed(run(*args), 2, "share 1 prompt, such as 'positives 3'")
    (tmp_path / "positives.txt").write_text("\n")
    failed(run(*args), 2, "holds no prompts")


def test_nothing_is_compared_with_itself(run: Run, tmp_path: Path) -> None:
    alone = "would be compared with itself. Give a BUNDLE of another precision, or a --backend"
    failed(run("parity"), 2, "onnxruntime on", alone)
    failed(run("parity", tmp_path, "--reference", tmp_path / "a" / ".."), 2, alone)
    twice = ("--backend", "openvino", "--reference-backend", "openvino")
    failed(run("parity", *twice), 2, "openvino on", alone)

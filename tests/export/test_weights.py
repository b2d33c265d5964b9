from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from mnemoscope_export.weights import SharedWeights

Array = NDArray[np.float32]


def matmul(weight: Array) -> ir.Model:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["b", len(weight)])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10))


def run(path: Path, x: Array) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values: list[Array] = session.run(None, {"x": x})
    return values[0]


@pytest.fixture
def weight() -> Array:
    return np.random.default_rng(0).standard_normal((40, 30), np.float32)


def test_equal_weights_are_stored_once(tmp_path: Path, weight: Array) -> None:
    shared = SharedWeights(tmp_path / "model.weights")
    x = np.ones((2, 40), np.float32)
    for name in ("a.onnx", "b.onnx"):
        shared.save(matmul(weight), tmp_path / name)
        np.testing.assert_allclose(run(tmp_path / name, x), x @ weight, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "model.weights").stat().st_size == weight.nbytes
    shared.save(matmul(weight + 1), tmp_path / "c.onnx")
    np.testing.assert_allclose(run(tmp_path / "c.onnx", x), x @ (weight + 1), rtol=1e-5, atol=1e-4)
    assert (tmp_path / "model.weights").stat().st_size == 2 * weight.nbytes


def test_exact_halves_are_stored_as_halves(tmp_path: Path, weight: Array) -> None:
    rounded = weight.astype(np.float16).astype(np.float32)
    SharedWeights(tmp_path / "model.weights").save(matmul(rounded), tmp_path / "a.onnx")
    assert (tmp_path / "model.weights").stat().st_size == rounded.nbytes // 2
    x = np.eye(40, dtype=np.float32)
    np.testing.assert_array_equal(run(tmp_path / "a.onnx", x), rounded)


def test_one_value_that_is_no_half_keeps_all(tmp_path: Path, weight: Array) -> None:
    rounded = weight.astype(np.float16).astype(np.float32)
    rounded[0, 0] = 1e6  # overflows a half
    SharedWeights(tmp_path / "model.weights").save(matmul(rounded), tmp_path / "a.onnx")
    assert (tmp_path / "model.weights").stat().st_size == rounded.nbytes


def test_same_bytes_of_another_type_are_kept_apart(tmp_path: Path) -> None:
    zeros = np.zeros((40, 30), np.float32)
    shared = SharedWeights(tmp_path / "model.weights")
    shared.save(matmul(zeros), tmp_path / "a.onnx")
    shared.save(matmul(np.zeros((40, 15), np.float32)), tmp_path / "b.onnx")
    assert run(tmp_path / "b.onnx", np.ones((1, 40), np.float32)).shape == (1, 15)


def test_small_tensors_stay_in_the_graph(tmp_path: Path) -> None:
    small = np.ones((4, 4), np.float32)
    SharedWeights(tmp_path / "model.weights").save(matmul(small), tmp_path / "a.onnx")
    assert (tmp_path / "model.weights").stat().st_size == 0
    assert run(tmp_path / "a.onnx", small).tolist() == [[4.0] * 4] * 4

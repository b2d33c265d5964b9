from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from cuda_kernels import lacking_in

from mnemoscope_export.torch.lowering import drop_idle_squeezes, lower_argmax, lower_permutations

SHAPE = (3, 7, 5)


def argmax(dtype: ir.DataType, **attributes: int) -> ir.Model:
    x = ir.Value(name="x", shape=ir.Shape(SHAPE), type=ir.TensorType(dtype))
    node = ir.node("ArgMax", [x], attributes=attributes)
    return of(x, node, ir.DataType.INT64)


def of(x: ir.Value, node: ir.Node, dtype: ir.DataType, *weights: ir.Value) -> ir.Model:
    """A graph of one node."""
    node.outputs[0].name = "found"
    node.outputs[0].type = ir.TensorType(dtype)
    graph = ir.Graph(
        [x], node.outputs, nodes=[node], initializers=weights, opset_imports={"": 18}, name="one"
    )
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("dtype", [ir.DataType.INT32, ir.DataType.INT64])
@pytest.mark.parametrize("attributes", [{}, {"axis": -1, "keepdims": 0}, {"axis": 1}, {"axis": 2}])
def test_the_first_of_the_largest(dtype: ir.DataType, attributes: dict[str, int]) -> None:
    few = np.random.default_rng(0).integers(-2, 3, SHAPE)  # so that there are equals
    large = few + 2**30  # where float32 tells no two of them apart
    model = argmax(dtype, **attributes)
    expected = {id(x): run(model, x.astype(dtype.numpy())) for x in (few, large)}
    assert lacking_in(ir.to_proto(model)) == {f"ArgMax T={dtype.name.lower()} tensor(int64)=int64"}
    lower_argmax(model)
    assert lacking_in(ir.to_proto(model)) == set()
    for x in (few, large):
        np.testing.assert_array_equal(run(model, x.astype(dtype.numpy())), expected[id(x)])


def test_of_floats_it_stays() -> None:
    model = argmax(ir.DataType.FLOAT, axis=1)
    assert lacking_in(ir.to_proto(model)) == set()
    lower_argmax(model)
    assert [node.op_type for node in model.graph] == ["ArgMax"]


@pytest.mark.parametrize(("shape", "axis", "kept"), [((3, 7), 1, True), ((3, 1), -1, False)])
def test_what_pytorch_does_not_squeeze(shape: tuple[int, int], axis: int, kept: bool) -> None:
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    axes = ir.tensor(np.array([axis], np.int64), name="axes")
    weight = ir.Value(
        name="axes", shape=ir.Shape([1]), type=ir.TensorType(axes.dtype), const_value=axes
    )
    model = of(x, ir.node("Squeeze", [x, weight]), ir.DataType.FLOAT, weight)
    given = np.ones(shape, np.float32)
    if kept:
        with pytest.raises(Exception, match="must be 1 instead of 7"):  # ONNX Runtime's own
            run(model, given)
    drop_idle_squeezes(model)
    assert run(model, given).shape == torch.from_numpy(given).squeeze(axis).shape


@pytest.mark.parametrize(
    ("equation", "kind"),
    [
        ("abc->cab", "Transpose"),
        ("abc->ab", "Einsum"),
        ("abc->cbd", "Einsum"),
        ("abb->ab", "Einsum"),
    ],
)
def test_what_only_transposes(equation: str, kind: str) -> None:
    x = ir.Value(name="x", shape=ir.Shape(SHAPE), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Einsum", [x], attributes={"equation": equation})
    model = of(x, node, ir.DataType.FLOAT)
    given = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    lower_permutations(model)
    assert [node.op_type for node in model.graph] == [kind]
    if kind == "Transpose":
        assert lacking_in(ir.to_proto(model)) == set()
        np.testing.assert_array_equal(run(model, given), np.einsum(equation, given))

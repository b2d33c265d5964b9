from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from mnemoscope_runtime import BackendError
from mnemoscope_runtime.backends.openvino_gathers import bound_gathers

DATA = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)


def compiled(folder: Path, depth: int | None, **attributes: int) -> object:
    """GatherND(d, i), with Gather in its place."""
    import openvino

    given = [
        helper.make_tensor_value_info("d", TensorProto.FLOAT, [None, None, None]),
        helper.make_tensor_value_info("i", TensorProto.INT64, [None, depth]),
    ]
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    node = helper.make_node("GatherND", ["d", "i"], ["o"], **attributes)
    graph = helper.make_graph([node], "g", given, [out])
    opsets = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (folder / "g.onnx").write_bytes(made.SerializeToString())
    model = openvino.Core().read_model(folder / "g.onnx")
    bound_gathers(model)
    assert "GatherND" not in {node.get_type_name() for node in model.get_ordered_ops()}
    return openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_same_from_within_and_nothing_from_outside(tmp_path: Path, depth: int) -> None:
    run = compiled(tmp_path, depth)
    rng = np.random.default_rng(1)
    places = np.stack([rng.integers(0, size, 5) for size in DATA.shape[:depth]], -1)
    expected = np.array([DATA[tuple(place)] for place in places])
    np.testing.assert_array_equal(run({"d": DATA, "i": places})["o"], expected)  # type: ignore[operator]
    known = {0.0, *DATA.ravel().tolist()}
    for beyond in (4, 100, 10**7, -100, -(10**7), 2**40, -(2**62)):
        found = run({"d": DATA, "i": np.full_like(places, beyond)})["o"]  # type: ignore[operator]
        assert found.shape == expected.shape
        assert set(found.ravel().tolist()) <= known


@pytest.mark.parametrize("case", [{"depth": None}, {"depth": 1, "batch_dims": 1}])
def test_what_cannot_be_bounded_is_refused(tmp_path: Path, case: dict[str, int]) -> None:
    with pytest.raises(BackendError, match="cannot be kept within its data on OpenVINO"):
        compiled(tmp_path, **case)


def test_a_single_row_is_never_gathered_itself() -> None:
    """As of a bank of one noise, which bfloat16 graphs wrote over: the second call was wrong.

    Seen in `tests/export/models/test_sdxl.py::test_bfloat16`, and in no small graph.
    """
    import openvino
    from openvino import opset13 as ops

    data, places = DATA[:1], ops.parameter([-1, 1], np.int64, name="i")
    gathered = ops.gather_nd(ops.constant(data), places, 0)
    model = openvino.Model([ops.result(gathered)], [places], "m")
    bound_gathers(model)
    [gather] = [each for each in model.get_ordered_ops() if each.get_type_name() == "Gather"][-1:]
    assert gather.input(0).get_partial_shape()[0] == 2
    found = openvino.compile_model(model, "CPU")({"i": np.array([[0], [-1]])})[0]
    np.testing.assert_array_equal(found, np.repeat(data, 2, 0))

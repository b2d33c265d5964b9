from __future__ import annotations

from cuda_kernels import lacking_in
from onnx import TensorProto, helper


def test_what_has_a_kernel_in_float32_may_have_none_in_float16() -> None:
    scalars = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in "abc"]
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n"])
    node = helper.make_node("Range", list("abc"), ["found"])
    graph = helper.make_graph([node], "one", scalars, [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert lacking_in(model) == set()
    assert lacking_in(model, halved=True) == {"Range T=float16"}

"""Counting the arithmetic of an ONNX graph, as `mnemoscope_export.torch.flops` counts PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from mnemoscope_runtime.errors import ExportError

__all__ = ["count_flops"]

_COUNTED = ("Conv", "Gemm", "MatMul")


def count_flops(model: ir.Model, sizes: Mapping[str, int]) -> int:
    """Floating-point operations of convolutions and matrix products.

    Args:
        model: A graph; its weights are not looked at.
        sizes: What open dimensions are taken to be, by name: {"batch": 1}.

    Raises:
        ExportError: the shapes cannot be told from the graph.
    """
    proto = ir.to_proto(model)
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    total = 0
    for node in graph.node:
        if node.op_type in _COUNTED:
            try:
                total += _flops(node, shapes)
            except KeyError as error:
                raise ExportError(
                    f"The arithmetic of {node.name} cannot be counted: the shape of {error} is "
                    "unknown. Export the model to ONNX again with Optimum."
                ) from None
    return total


def _flops(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    left, right, result = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return 2 * math.prod(result) * math.prod(right[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * math.prod(result) * left[-2 if transposed else -1]

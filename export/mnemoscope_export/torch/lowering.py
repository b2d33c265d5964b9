"""Operators that some library lacks or takes otherwise, in terms of those that all have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["drop_idle_squeezes", "lower_argmax", "lower_permutations"]

_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def lower_argmax(model: ir.Model) -> None:
    """Replace `ArgMax` of integers, which ONNX Runtime's CUDA provider has for floats alone.

    CLIP finds a prompt's end as the first of its largest ids, or the first of its end tokens. So
    does what replaces it, exactly, for any ids; of a float `ArgMax` cuDNN does not promise the
    first of equals.
    """
    for node in list(model.graph):
        if node.op_type == "ArgMax" and node.inputs[0] is not None:
            _lower(model.graph, node, node.inputs[0])


def drop_idle_squeezes(model: ir.Model) -> None:
    """Remove `Squeeze` of a single dimension that is not 1, which PyTorch leaves as it is.

    ONNX refuses it, and PyTorch's exporter translates it all the same (2.13): transformers of
    diffusers squeeze what some of their variants have.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Squeeze" or len(node.inputs) < 2:
            continue
        values, chosen = node.inputs[:2]
        axes = None if chosen is None else ir.convenience.get_const_tensor(chosen)
        if values is None or values.shape is None or axes is None or axes.size != 1:
            continue
        length = values.shape[axes.numpy().item()]
        if isinstance(length, int) and length != 1:
            same = ir.node("Identity", [values])
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [same], node.outputs, same.outputs
            )


def lower_permutations(model: ir.Model) -> None:
    """Replace each `Einsum` that only transposes, since ONNX Runtime's CUDA provider has none.

    diffusers puts the patches of a picture together so.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Einsum" or len(node.inputs) != 1 or node.inputs[0] is None:
            continue
        given, _, wanted = node.attributes.get_string("equation", "").partition("->")
        if not given.isalpha() or len(set(given)) < len(given) or sorted(given) != sorted(wanted):
            continue
        order = [given.index(letter) for letter in wanted]
        same = ir.node("Transpose", [node.inputs[0]], attributes={"perm": order})
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], [same], node.outputs, same.outputs
        )


def _lower(graph: ir.Graph, node: ir.Node, values: ir.Value) -> None:
    """argmax(x) = min(where(x == max(x), 0..L-1, L)), along one axis of a known length L."""
    axis = node.attributes.get_int("axis", 0)
    length = None if values.shape is None else values.shape[axis]
    if values.dtype not in _INTEGERS or not isinstance(length, int):
        return
    assert not node.attributes.get_int("select_last_index", 0)
    name = node.outputs[0].name

    def constant(array: object, what: str) -> ir.Value:
        tensor = ir.tensor(np.asarray(array, np.int64), name=f"{name}.{what}")
        value = ir.Value(
            name=tensor.name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    assert values.shape is not None
    behind = [1] * ((len(values.shape) - axis if axis >= 0 else -axis) - 1)
    axes = constant([axis], "axes")
    places = constant(np.arange(length).reshape(-1, *behind), "places")
    largest = ir.node("ReduceMax", [values, axes], attributes={"keepdims": 1})
    is_largest = ir.node("Equal", [values, *largest.outputs])
    candidates = ir.node("Where", [*is_largest.outputs, places, constant(length, "length")])
    first = ir.node(
        "ReduceMin",
        [*candidates.outputs, axes],
        attributes={"keepdims": node.attributes.get_int("keepdims", 1)},
    )
    ir.convenience.replace_nodes_and_values(
        graph,
        node,
        [node],
        [largest, is_largest, candidates, first],
        node.outputs,
        first.outputs,
    )

"""Shapes, evaluated once: only the batch stays open.

An ONNX export works out every shape at run time. In a bundle channels, height, width and prompt
length are fixed, so what depends on shapes alone is constant, and a batch is the -1 of a Reshape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .compose import Composer
from .cut import BROADCASTING, SHAPE, dependencies
from .evaluate import evaluate

__all__ = ["freeze_shapes"]

Array = NDArray[Any]


def freeze_shapes(model: ir.Model, one: Mapping[str, Array], folder: Path) -> None:
    """Replace what depends on shapes alone, in place, by what it is for batches of one and two.

    A Reshape's batch becomes -1, rows that are alike become one that broadcasts, and sizes that
    grow with the batch are computed from it. What differs in another way is left as it is.

    Args:
        model: A graph whose inputs have a batch in front, or no dimensions at all.
        one: Inputs for a batch of one.
        folder: Where the model's weights are.
    """
    graph = model.graph
    known = dependencies(graph)
    uses = [
        (node, index, value)
        for node in graph
        if not known[node.outputs[0]] <= {SHAPE}
        for index, value in enumerate(node.inputs)
        if value is not None and known.get(value) == frozenset({SHAPE})
    ]
    composer = Composer(f"{graph.name} (shapes)", graph.opset_imports[""])
    bound = {v: composer.input_like(v) for v in graph.inputs}
    # of a Reshape what comes out, since its own target may hold a -1
    wanted = [node.outputs[0] if _is_target(node, index) else value for node, index, value in uses]
    outputs = {}
    for i, copy in enumerate(composer.inline(graph, bound, wanted)):
        kind = "Shape" if _is_target(*uses[i][:2]) else "Identity"
        outputs[f"shape.{i}"] = (composer.op(kind, copy), None)
    probe = composer.model(outputs)
    two = {name: np.repeat(a, 2, axis=0) if a.ndim > 1 else a for name, a in one.items()}
    pairs = zip(*evaluate(probe, (one, two), folder), strict=True)
    batch = _batch(graph)
    for i, ((node, index, _), (found, grown)) in enumerate(zip(uses, pairs, strict=True)):
        fixed = _independent(node, index, found, grown)
        if fixed is not None:
            node.replace_input_with(index, _initializer(graph, fixed, f"frozen.{i}"))
        elif found.shape == grown.shape and found.ndim == 1 and found.dtype == np.int64:
            slope = _initializer(graph, grown - found, f"slope.{i}")
            offset = _initializer(graph, 2 * found - grown, f"offset.{i}")
            product = ir.node("Mul", [batch, slope])
            total = ir.node("Add", [product.outputs[0], offset])
            graph.insert_before(node, [product, total])
            node.replace_input_with(index, total.outputs[0])
    RemoveUnusedNodesPass()(model)


def _batch(graph: ir.Graph) -> ir.Value:
    """The size of the batch, [1], computed from the first input that has one."""
    source = next(value for value in graph.inputs if len(value.shape or ()) > 1)
    shape = ir.node("Shape", [source])
    first = ir.node("Gather", [shape.outputs[0], _initializer(graph, np.zeros(1, int), "first")])
    graph.insert_before(graph[0], [shape, first])
    return first.outputs[0]


def _independent(node: ir.Node, index: int, found: Array, grown: Array) -> Array | None:
    """What serves any batch in place of `found`, which becomes `grown` for a batch of two."""
    if found.shape == grown.shape:
        if np.array_equal(found, grown):
            return found
        if _is_target(node, index) and (found != grown).sum() == 1:
            return np.where(found == grown, found, -1)
        return None
    alike = found.shape[1:] == grown.shape[1:] and bool((found == grown).all())
    return found if alike and node.op_type in BROADCASTING else None


def _is_target(node: ir.Node, index: int) -> bool:
    return node.op_type == "Reshape" and index == 1


def _initializer(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value

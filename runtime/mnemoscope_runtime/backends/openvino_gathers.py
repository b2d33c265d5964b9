"""GatherND for OpenVINO, whose own reads wherever indices say, outside its data too (2026.4)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..errors import BackendError

__all__ = ["bound_gathers"]

_OPSET = "openvino.opset13"


def bound_gathers(model: Any) -> None:
    """Put Gather in place of every GatherND of a model, which is given back zeros from outside.

    GatherND takes the first axes of its data one by one, Gather one axis: so they are made one, and
    indices count in it. Within the data both return the same.

    Raises:
        BackendError: one has batches, or indices of open depth, as exports have none.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "GatherND"]
    for node in found:
        depth = node.input(1).get_partial_shape()[-1]
        if node.get_attributes()["batch_dims"] or not depth.is_static:
            raise BackendError(
                "The graph gathers in batches, or by indices of open depth, which cannot be kept "
                "within its data on OpenVINO. Use the backend onnxruntime."
            )
        bounded = _gather(node.input_value(0), node.input_value(1), depth.get_length())
        bounded.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(bounded.output(0))


def _gather(data: Any, indices: Any, depth: int) -> Any:
    ops: Any = importlib.import_module(_OPSET)

    def number(value: int | list[int]) -> Any:
        return ops.constant(np.array(value, np.int64))

    def at(value: Any, place: int, axis: int) -> Any:
        return ops.gather(value, number(place), number(axis))

    flat = at(indices, 0, -1)
    if depth > 1:
        shape = ops.shape_of(data, "i64")
        for axis in range(1, depth):
            flat = ops.add(ops.multiply(flat, at(shape, axis, 0)), at(indices, axis, -1))
        rest = ops.slice(shape, number([depth]), number([2**31 - 1]), number([1]))
        data = ops.reshape(data, ops.concat([number([-1]), rest], 0), special_zero=False)
    elif data.get_partial_shape()[0] == 1:
        # of a single row Gather returns the data itself, over which bfloat16 graphs then write
        data = ops.concat([data, data], 0)
    return ops.gather(data, flat, number(0))

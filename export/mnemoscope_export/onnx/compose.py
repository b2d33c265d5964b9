"""Building a graph out of others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Composer"]

Shape = Sequence[int | str]
_IR_VERSION = 10  # of ONNX files; ONNX 1.16 and TensorRT 10 read it


class Composer:
    """A graph under construction; other graphs are copied into it with their inputs bound."""

    def __init__(self, name: str, opset: int) -> None:
        self._opset = opset
        self._graph = ir.Graph((), (), nodes=(), opset_imports={"": opset}, name=name)
        self._parts = 0

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        """An input; dimensions with a name stay open."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        return self._add(value)

    def input_like(self, source: ir.Value, shape: Shape | None = None) -> ir.Value:
        """An input as another graph has it, or of another shape."""
        copied = source.shape if shape is None else ir.Shape(shape)
        return self._add(ir.Value(name=source.name, shape=copied, type=source.type))

    def _add(self, value: ir.Value) -> ir.Value:
        self._graph.inputs.append(value)
        return value

    def constant(self, array: NDArray[Any] | np.generic | Sequence[int], name: str) -> ir.Value:
        """An initialiser."""
        return self._initializer(ir.tensor(np.asarray(array), name=name), name)

    def op(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """A node with one output."""
        node = ir.node(op_type, inputs, attributes=attributes)
        self._graph.append(node)
        return node.outputs[0]

    def cast(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        """`value` in another type; what is in that type already stays as it is."""
        assert dtype is not None
        if value.dtype == dtype:
            return value
        cast = self.op("Cast", value, to=int(dtype))
        cast.type = ir.TensorType(dtype)
        return cast

    def inline(
        self, body: ir.Graph, bound: Mapping[ir.Value, ir.Value], outputs: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """Copy what computes `outputs` of `body` from the values `bound` to values of this graph.

        Returns:
            The copies of `outputs`.
        """
        self._parts += 1
        prefix = f"part{self._parts}."
        copies = dict(bound)
        for node in _needed(body, outputs, bound):
            for value in node.inputs:
                if value is not None and value not in copies:
                    assert value.const_value is not None, f"{value.name} is not bound"
                    copies[value] = self._initializer(value.const_value, f"{prefix}{value.name}")
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else copies[value] for value in node.inputs],
                node.attributes.values(),
                num_outputs=len(node.outputs),
                name=f"{prefix}{node.name}",
            )
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.type = f"{prefix}{old.name}", old.type
                copies[old] = new
            self._graph.append(copy)
        return [copies[value] for value in outputs]

    def model(self, outputs: Mapping[str, tuple[ir.Value, Shape | None]]) -> ir.Model:
        """The finished model, with these outputs by name: float32 where a shape is given."""
        for name, (value, shape) in outputs.items():
            value.name = name
            if shape is not None:
                value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
            self._graph.outputs.append(value)
        return ir.Model(self._graph, ir_version=_IR_VERSION, producer_name="mnemoscope")

    def _initializer(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value


def _needed(
    body: ir.Graph, outputs: Iterable[ir.Value], bound: Collection[ir.Value]
) -> list[ir.Node]:
    """The nodes between `bound` and `outputs`, in the graph's order."""
    nodes, stack = set(), list(outputs)
    while stack:
        value = stack.pop()
        node = None if value in bound else value.producer()
        if node is not None and node not in nodes:
            nodes.add(node)
            stack += [value for value in node.inputs if value is not None]
    return [node for node in body if node in nodes]

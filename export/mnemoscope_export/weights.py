"""One file of weights for all graphs of a bundle: equal tensors are stored once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["SharedWeights"]

_SMALL = 1024  # bytes; smaller tensors stay inside the graph
_ALIGNMENT = 64


class SharedWeights:
    """Moves the weights of graphs into one file, by content.

    Float32 weights that are exactly half floats are stored as such, with a Cast in the graph:
    nothing is lost, and an engine folds the Cast when it loads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[tuple[str, str], int] = {}

    def save(self, model: ir.Model, path: Path) -> None:
        """Write the graph to `path`, beside the weights, and its weights into the shared file."""
        with self._path.open("ab") as file:
            for value in list(model.graph.initializers.values()):
                tensor = value.const_value
                if tensor is not None and tensor.nbytes > _SMALL:
                    self._move(model.graph, value, tensor.numpy(), file)
                    if isinstance(tensor, ir.ExternalTensor):
                        tensor.release()
        ir.save(model, path)

    def _move(
        self, graph: ir.Graph, value: ir.Value, array: NDArray[np.generic], file: BinaryIO
    ) -> None:
        half = _as_half(array)
        if half is None:
            value.const_value = self._store(array, str(value.name), file)
            return
        stored = self._store(half, f"{value.name}.half", file)
        source = ir.Value(
            name=stored.name,
            shape=ir.Shape(half.shape),
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=stored,
        )
        cast = ir.node("Cast", [source], attributes={"to": int(ir.DataType.FLOAT)})
        name = str(value.name)
        graph.initializers.pop(name)
        value.replace_all_uses_with(cast.outputs[0])
        cast.outputs[0].name = name
        cast.outputs[0].shape = value.shape
        cast.outputs[0].type = value.type
        graph.initializers.add(source)
        graph.insert_before(graph[0], cast)

    def _store(self, array: NDArray[np.generic], name: str, file: BinaryIO) -> ir.ExternalTensor:
        array = np.ascontiguousarray(array)
        content = array.reshape(-1).view(np.uint8).data  # bfloat16 itself has no buffer
        key = (str(array.dtype), hashlib.sha256(content).hexdigest())
        if key not in self._offsets:
            file.seek(0, 2)
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            self._offsets[key] = file.tell()
            file.write(content)
        return ir.ExternalTensor(
            self._path.name,
            self._offsets[key],
            array.nbytes,
            ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self._path.parent,
        )


def _as_half(array: NDArray[np.generic]) -> NDArray[np.float16] | None:
    """The same values as half floats, or None where that would lose something."""
    if array.dtype != np.float32:
        return None
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else None

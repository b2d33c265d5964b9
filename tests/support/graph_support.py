"""What graphs compute in."""

from __future__ import annotations

from pathlib import Path

import onnx


def kinds(file: Path) -> set[int]:
    """Types of the network's weights, in ONNX's numbers; what goes in and out is in float32."""
    graph = onnx.load(file, load_external_data=False).graph
    floats = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert floats <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    return {w.data_type for w in graph.initializer if w.name.startswith("unet")}

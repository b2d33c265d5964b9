"""What graphs compute in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx


def kinds(file: Path) -> set[int]:
    """Types of the UNet's large weights, in ONNX's numbers; what goes in and out is in float32."""
    graph = onnx.load(file, load_external_data=False).graph
    floats = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert floats <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    large = [w for w in graph.initializer if np.prod(w.dims) > 1024]
    return {w.data_type for w in large if w.name.startswith("unet")}

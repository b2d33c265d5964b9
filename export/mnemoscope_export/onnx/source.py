"""Reading the graphs of an ONNX export, and making them ready to be composed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.graphs.files import read_graph
from mnemoscope_runtime.graphs.walk import Refused

from .evaluate import fit
from .shapes import freeze_shapes

__all__ = [
    "TEXT_ENCODER",
    "UNET",
    "Component",
    "Signature",
    "embedding_rows",
    "prepare_component",
    "read",
]

_SMALL = 1024  # bytes; smaller tensors stay inside the graph
_AGAIN = "Export the model to ONNX again."


@dataclass(frozen=True)
class Signature:
    """What goes in, and the one output that is used."""

    inputs: frozenset[str]
    output: str


TEXT_ENCODER = Signature(frozenset({"input_ids"}), "last_hidden_state")
UNET = Signature(frozenset({"sample", "timestep", "encoder_hidden_states"}), "out_sample")


@dataclass(frozen=True)
class Component:
    """A graph that has been made ready, in a folder of ours.

    Attributes:
        path: Its file; the weights are beside it.
        sha256: A hash over names, types and values of its weights.
        dtype: What most of its weights are in.
        parameters: How many of them there are.
        opset: The ONNX opset.
        producer: What wrote it.
    """

    path: Path
    sha256: str
    dtype: ir.DataType
    parameters: int
    opset: int
    producer: str

    def load(self) -> ir.Model:
        """A fresh copy; the weights stay on disk until they are used."""
        return ir.load(self.path)


def read(path: Path, signature: Signature) -> ir.Model:
    """Load and check a graph of an export; its weights stay on disk if they are in files beside it.

    Raises:
        ExportError: damaged, incomplete, or not what a bundle can be made of.
    """
    try:
        model = ir.from_proto(onnx.load_model_from_string(read_graph(path)))
        ir.external_data.set_base_dir(model.graph, path.parent)
    except Refused as error:
        raise ExportError(
            f"{path} is no ONNX model that can be used: {error}. Give the export as the exporter "
            "wrote it, not optimised or quantised with other tools."
        ) from None
    except Exception as error:  # protobuf's and onnx_ir's errors share no base class
        raise ExportError(f"{path} is no ONNX model: {_first_line(error)} {_AGAIN}") from None
    _check_signature(path, model, signature)
    return model


def embedding_rows(graph: ir.Graph) -> int | None:
    """How many token embeddings a text encoder has; None where no Gather tells."""
    values = [value for value in graph.inputs if value.name == "input_ids"]
    for value in values:  # grows by what is still the ids
        for node, index in value.uses():
            if node.op_type == "Gather" and index == 1 and node.inputs[0] is not None:
                table = node.inputs[0].const_value
                rows = None if table is None else table.shape[0]
                return rows if isinstance(rows, int) else None
            if node.op_type in ("Cast", "Reshape", "Identity"):
                values += node.outputs
    return None


def prepare_component(
    source: Path, signature: Signature, one: Mapping[str, NDArray[Any]], path: Path
) -> Component:
    """Write a graph without what a bundle does not need, its shapes evaluated.

    Args:
        source: A graph of the export.
        signature: What it takes and gives.
        one: Inputs for a batch of one.
        path: The file to write; the weights go beside it.

    Raises:
        ExportError: a bundle cannot be made of the graph.
    """
    model = read(source, signature)
    graph, feeds = model.graph, fit(model.graph, one)
    _check_sizes(source, graph, feeds)
    kept = next(value for value in graph.outputs if value.name == signature.output)
    graph.outputs[:] = [kept]
    graph.name = path.stem
    sha256, sizes = _digest(graph), _sizes(graph)
    for step in (
        ClearMetadataAndDocStringPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
        ShapeInferencePass(),
    ):
        step(model)
    ir.save(model, path, external_data=f"{path.stem}.data", size_threshold_bytes=_SMALL)
    for value in graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.release()
    del model, graph, kept, value
    model = ir.load(path)
    freeze_shapes(model, feeds, path.parent)
    ir.save(model, path)
    dtype, parameters = sizes.most_common(1)[0]
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return Component(path, sha256, dtype, parameters, model.graph.opset_imports[""], producer)


def _check_signature(path: Path, model: ir.Model, signature: Signature) -> None:
    graph = model.graph
    initializers = set(graph.initializers)
    inputs = {str(value.name) for value in graph.inputs} - initializers
    outputs = {str(value.name) for value in graph.outputs}
    if inputs != signature.inputs or signature.output not in outputs:
        raise ExportError(
            f"{path} takes {_listed(inputs)} and gives {_listed(outputs)}; a Stable Diffusion 1.x "
            f"or 2.x takes {_listed(signature.inputs)} and gives {signature.output}."
        )
    for value in graph.inputs:
        if value.shape is None or value.dtype is None:
            raise ExportError(f"{path} does not say what shape and type {value.name} has. {_AGAIN}")
        if len(value.shape) > 1 and isinstance(value.shape[0], int):
            raise ExportError(
                f"{path} was exported for batches of {value.shape[0]} only ({value.name}). "
                "Export the model again with an open batch dimension, as Optimum does."
            )
    dtype = _sizes(graph).most_common(1)[0][0] if graph.initializers else None
    if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        raise ExportError(
            f"{path} holds its weights in {dtype.name if dtype else 'nothing'}; FLOAT and FLOAT16 "
            "can be used. Give the export as it was before it was quantised."
        )


def _check_sizes(path: Path, graph: ir.Graph, feeds: Mapping[str, NDArray[Any]]) -> None:
    for value in graph.inputs:
        fixed, given = list(value.shape or ()), feeds[str(value.name)].shape
        pairs = zip(fixed, given, strict=True)
        if any(isinstance(size, int) and size != actual for size, actual in pairs):
            raise ExportError(
                f"{path} takes {value.name} of {value.shape} only, not of {given}. Export the "
                "model to ONNX again with open dimensions, as Optimum does, or in that size."
            )


def _sizes(graph: ir.Graph) -> Counter[ir.DataType]:
    sizes = Counter[ir.DataType]()
    for value in graph.initializers.values():
        if value.const_value is not None:
            sizes[value.const_value.dtype] += value.const_value.size
    return sizes


def _digest(graph: ir.Graph) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(graph.initializers.items()):
        tensor = value.const_value
        assert tensor is not None
        digest.update(f"{name} {tensor.dtype.name} {tuple(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
    return digest.hexdigest()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."

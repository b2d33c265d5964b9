"""What of a graph ONNX Runtime's CUDA provider has no kernel for, without a GPU.

`cuda_kernels.json` holds what ONNX Runtime's own documentation lists of its CUDA provider from
opset 14 on: operators, opsets and types. What has no kernel but is a function of others is
inlined, as ONNX Runtime does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from onnx import defs

from mnemoscope_runtime import Bundle

_HALVES = {"float": "float16"}
_TYPES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}


def lacking(bundle: Path, *, halved: bool = False) -> set[str]:
    """Operators with the types that have no kernel: "ArgMax T=int32 (screen.onnx)".

    Each graph is validated first, strictly: every type, every shape. If `halved` all that is in
    float32 is looked up as float16.
    """
    opened = Bundle.open(bundle)
    found = set()
    for file in opened.manifest.graphs.values():
        onnx.checker.check_model(str(bundle / file), full_check=True)
        model = onnx.load(str(bundle / file), load_external_data=False)
        found |= {f"{what} ({file})" for what in lacking_in(model, halved=halved)}
    return found


def types_of(bundle: Path, operators: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Nodes of some operators in all graphs, with their type parameters."""
    found = []
    for file in Bundle.open(bundle).manifest.graphs.values():
        model = onnx.load(str(bundle / file), load_external_data=False)
        model, known = _inferred(model)
        nodes = (node for node in model.graph.node if node.op_type in operators)
        found += [(node.op_type, _types(node, _opset(model), known)) for node in nodes]
    return found


def lacking_in(model: onnx.ModelProto, *, halved: bool = False) -> set[str]:
    """The same for one graph."""
    opset = _opset(model)
    others = {node.op_type for node in model.graph.node} - _kernels().keys()
    functions = [("", name) for name in others if _is_function(name, opset)]
    if functions:
        model = onnx.inliner.inline_selected_functions(
            model, functions, inline_schema_functions=True
        )
    model, known = _inferred(model)
    found = set()
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        types = _types(node, opset, known)
        if halved:
            types = {name: _HALVES.get(kind, kind) for name, kind in types.items()}
        if not any(
            kernel["since"] <= opset <= (kernel["until"] or opset)
            and all(
                types[name] in kernel["types"][name]
                for name in types.keys() & kernel["types"].keys()
            )
            for kernel in _kernels().get(node.op_type, ())
        ):
            found.add(" ".join([node.op_type, *(f"{n}={t}" for n, t in sorted(types.items()))]))
    return found


def _opset(model: onnx.ModelProto) -> int:
    (opset,) = (o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return int(opset)


def _inferred(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """With all types and shapes, and the element type of every value."""
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    known = {v.name: v.type.tensor_type.elem_type for v in _values(model.graph)}
    return model, known | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def _is_function(name: str, opset: int) -> bool:
    schema = defs.get_schema(name, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _types(node: onnx.NodeProto, opset: int, known: dict[str, int]) -> dict[str, str]:
    """The node's type parameters: {"T": "float", "Tind": "int64"}."""
    assert node.domain == "", node.domain
    schema = defs.get_schema(node.op_type, opset)
    types = {}
    for formal, actual in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for index, name in enumerate(actual):
            if name:
                types[formal[min(index, len(formal) - 1)].type_str] = _TYPES[known[name]]
    return types


def _values(graph: onnx.GraphProto) -> Iterator[Any]:
    yield from graph.value_info
    yield from graph.input
    yield from graph.output


@cache
def _kernels() -> dict[str, list[dict[str, Any]]]:
    file = Path(__file__).with_suffix(".json")
    kernels: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())["kernels"]
    return kernels

"""What a UNet computes without looking at the prompt.

At a fixed timestep and on a fixed noise bank all of that is constant. The values on the boundary,
which do not depend on the prompt but are used by what does, are evaluated once at export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .compose import Composer
from .evaluate import evaluate

__all__ = ["BROADCASTING", "SHAPE", "Boundary", "dependencies", "evaluate_boundary"]

SHAPE = "shape of an input"
BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div"})

Array = NDArray[Any]


@dataclass(frozen=True)
class Boundary:
    """The values of a graph that are constants once sample and timestep are.

    Attributes:
        constant: Depends on the timestep alone; has no batch, or broadcasts over it.
        per_noise: Depends on the noise. # [noises, rows of one sample, ...]
    """

    constant: dict[ir.Value, Array]
    per_noise: dict[ir.Value, Array]


def dependencies(graph: ir.Graph) -> dict[ir.Value, frozenset[str]]:
    """The names of the inputs that each value is computed from; `SHAPE` where only shapes count."""
    known = {value: frozenset({str(value.name)}) for value in graph.inputs}
    for node in graph:
        found = frozenset[str]().union(*(known.get(v, ()) for v in node.inputs if v is not None))
        if node.op_type in ("Shape", "Size") and found:
            found = frozenset({SHAPE})
        known.update(dict.fromkeys(node.outputs, found))
    return known


def evaluate_boundary(
    model: ir.Model, prompt: str, feeds: Mapping[str, Array], noises: Array, folder: Path
) -> Boundary:
    """Find the boundary of a UNet, and evaluate it with ONNX Runtime, one noise at a time.

    Args:
        model: A UNet.
        prompt: The name of the input that is the prompt.
        feeds: The other inputs but `sample`.
        noises: The values of `sample`. # [noises, C, H, W]
        folder: Where the model's weights are.
    """
    known = dependencies(model.graph)
    values = _boundary(model.graph.outputs[0], known, prompt)
    composer = Composer(f"{model.graph.name} (prefix)", model.graph.opset_imports[""])
    bound = {
        value: composer.input_like(value, feed.shape)
        for value in model.graph.inputs
        if (feed := {"sample": noises[:1], **feeds}.get(str(value.name))) is not None
    }
    copies = composer.inline(model.graph, bound, values)
    outputs = {f"boundary.{i}": (composer.op("Identity", c), None) for i, c in enumerate(copies)}
    prefix = composer.model(outputs)
    rows = evaluate(prefix, ({"sample": noise[None], **feeds} for noise in noises), folder)
    constant, per_noise = {}, {}
    for value, column in zip(values, zip(*rows, strict=True), strict=True):
        fixed = SHAPE not in known[value] or _broadcasts(value, known, prompt)
        if "sample" not in known[value] and fixed:
            constant[value] = column[0]
        else:
            per_noise[value] = np.stack(column)
    return Boundary(constant, per_noise)


def _boundary(
    output: ir.Value, known: Mapping[ir.Value, frozenset[str]], prompt: str
) -> list[ir.Value]:
    found, seen, stack = [], set(), [output]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        on = known.get(value, frozenset())
        if prompt in on or on <= {SHAPE}:  # stays in the graph
            node = value.producer()
            stack += [v for v in node.inputs if v is not None] if node is not None else []
        else:
            found.append(value)
    return found


def _broadcasts(value: ir.Value, known: Mapping[ir.Value, frozenset[str]], prompt: str) -> bool:
    """Whether one row does for a whole batch, wherever the value meets the prompt."""
    users = [user for user in value.consumers() if prompt in known[user.outputs[0]]]
    return all(user.op_type in BROADCASTING for user in users)

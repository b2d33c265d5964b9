"""What the exporter's graphs lose; the witness is onnxscript's optimiser with every rule it has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest
from onnxscript.optimizer import optimize_ir


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_no_other_rule_finds_anything(bundle_dir: Path, graph: str) -> None:
    model = ir.load(bundle_dir / f"{graph}.onnx")
    nodes = Counter(node.op_type for node in model.graph)
    optimize_ir(model)
    assert Counter(node.op_type for node in model.graph) == nodes

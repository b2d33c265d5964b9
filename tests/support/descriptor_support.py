"""Copy descriptors that are made by tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from mnemoscope import BackendUnavailable
from mnemoscope.drawing.copy_detection import SSCD


@pytest.fixture(scope="session")
def sscd() -> SSCD:
    """The real one, where it is at hand."""
    from mnemoscope.drawing.known_descriptors import find_descriptor

    file = os.environ.get("MNEMOSCOPE_SSCD")
    try:
        return SSCD(find_descriptor("sscd") if file is None else file)
    except BackendUnavailable as error:
        pytest.skip(f"{error} Tests take its path from MNEMOSCOPE_SSCD.")


def as_it_comes(path: Path, *, takes_bytes: bool) -> Path:
    """A network that returns what it is given."""
    side, kind = 320, TensorProto.UINT8 if takes_bytes else TensorProto.FLOAT
    shape = ["batch", side, side, 3] if takes_bytes else ["batch", 3, side, side]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["descriptor"]),
        ],
        "as it comes",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["batch", 3 * side**2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path

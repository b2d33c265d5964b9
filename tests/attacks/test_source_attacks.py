"""ONNX exports of others, which `export --from-onnx` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile_graphs import HOSTILE, as_constant, as_weight, model, outside
from onnx import helper

from mnemoscope_export.onnx.source import Signature, read
from mnemoscope_runtime.errors import ExportError

SIGNATURE = Signature(frozenset({"input_ids", "noise_index"}), "magnitude")


@pytest.mark.slow
def test_hostile_graphs_are_refused_before_onnx_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        pytest.fail("onnx was given a graph to parse")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx, "load_model_from_string", refuse)
    (tmp_path / "secret").write_bytes(bytes(256))
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "secret")
    hostile = {
        **{name: make for name, make in HOSTILE.items() if name != "Trilu"},
        "a link": lambda: as_weight(outside("linked")),
        "a link, in a constant": lambda: as_constant(outside("linked")),
    }
    for name, make in hostile.items():
        (folder / "model.onnx").write_bytes(make())
        with pytest.raises(ExportError) as caught:
            read(folder / "model.onnx", SIGNATURE)
        assert "model.onnx is no ONNX model that can be used: " in str(caught.value), name


def test_data_beside_a_graph_is_read(tmp_path: Path) -> None:
    """Also that of constants, which tools move there too."""
    array = np.arange(64, dtype=np.float32)
    (tmp_path / "model.onnx_data").write_bytes(bytes(16) + array.tobytes())
    tensor = outside("model.onnx_data", offset=16)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    (tmp_path / "model.onnx").write_bytes(model([constant], tensor))
    graph = read(tmp_path / "model.onnx", SIGNATURE).graph
    found = [graph[0].attributes["value"].as_tensor(), graph.initializers["w"].const_value]
    for each in found:
        np.testing.assert_array_equal(each.numpy(), array)

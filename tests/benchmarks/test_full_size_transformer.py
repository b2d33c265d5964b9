"""Timing of a transformer's step against its screening graph, at toy width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import full_size_transformer as timing

_TOY = {
    "sample_size": 8, "num_attention_heads": 2, "caption_projection_dim": 128,
    "pos_embed_max_size": 8,
}  # fmt: skip


def test_arithmetic_grows_with_blocks_but_for_a_graph_that_stops() -> None:
    two, four, eight = (timing.arithmetic(n, ("transformer_blocks.0",), **_TOY) for n in (2, 4, 8))
    for name in (timing.PAPER, "screen"):
        assert eight[name] - four[name] == 2 * (four[name] - two[name])
    assert two["transformer_blocks.0"] == four["transformer_blocks.0"] < two["screen"]
    assert two["screen"] < two[timing.PAPER] / 2


@pytest.mark.slow
def test_every_row_measures_the_same(tmp_path: Path) -> None:
    timing.main(["--blocks", "2", "--rounds", "2", "--backends", "onnxruntime,openvino",
                 "--graphs", "screen,transformer_blocks.0",
                 "--output", str(tmp_path)], **_TOY)  # fmt: skip
    [file] = tmp_path.iterdir()
    rows = json.loads(file.read_bytes())["rows"]
    paper = rows[timing.PAPER]
    assert paper["ratio_p50"] == paper["ratio_of_all_blocks"] == 1
    for backend in ("onnxruntime", "openvino"):
        assert rows[f"screen, {backend}"]["measured"] == pytest.approx(paper["measured"], rel=1e-4)
        first = rows[f"transformer_blocks.0, {backend}"]
        assert first["ratio_of_all_blocks"] > first["ratio_p50"]
        assert first["gflop"] == first["gflop_of_all_blocks"]
    both = [
        rows[f"transformer_blocks.0, {each}"]["measured"] for each in ("onnxruntime", "openvino")
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-4)

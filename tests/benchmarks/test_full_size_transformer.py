"""Timing of a transformer's step against its screening graph, at toy width."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.full_size_transformer.__main__ import main
from benchmarks.full_size_transformer.model import PAPER, PROMPT, arithmetic, medium
from mnemoscope_export import noise_bank

_FIRST = "transformer_blocks.0"
_TOY = {
    "sample_size": 8, "num_attention_heads": 2, "caption_projection_dim": 128,
    "pos_embed_max_size": 8,
}  # fmt: skip


def _here(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return work(*args, **kwargs)


@torch.no_grad()
def _behind_the_first(blocks: int) -> float:
    """How far the prompt moves what the first block says of the picture, by a hook of PyTorch's."""
    model, found = medium(blocks, **_TOY), list[torch.Tensor]()
    first = model.transformer.transformer_blocks[0]
    first.register_forward_hook(lambda _, __, output: found.append(output[1]))
    noise = noise_bank(1, model.latent_shape, seed=0)
    for told in (model.embed([PROMPT]), model.embed_empty()):
        model.predict(noise, 1000, told)
    return float((found[0] - found[1]).norm())


@pytest.mark.slow
def test_arithmetic_grows_with_blocks() -> None:
    two, three, four = (arithmetic(["screen", _FIRST], n, **_TOY) for n in (2, 3, 4))
    for name in (PAPER, "screen"):
        assert four[name] - three[name] == three[name] - two[name] > 0
    assert two[_FIRST] < two["screen"] < two[PAPER] / 2


@pytest.mark.slow
def test_every_row_measures_the_same(tmp_path: Path) -> None:
    given = [
        *("--blocks", "2", "--rounds", "1", "--backends", "onnxruntime,openvino"),
        *("--graphs", f"screen,{_FIRST}", "--saved", str(tmp_path / "saved")),
        *("--output", str(tmp_path)),
    ]
    main(given, _here, **_TOY)
    [file] = tmp_path.glob("*.json")
    rows = json.loads(file.read_bytes())["rows"]
    assert {len(row["calls"]) for row in rows.values()} == {1}
    assert all(call["seconds"] > 0 for row in rows.values() for call in row["calls"])
    assert rows[PAPER]["times_as_fast"] == [1]
    measured = {name: row["calls"][0]["measured"] for name, row in rows.items()}
    witness = _behind_the_first(3)  # of two blocks it is the same
    for backend in ("onnxruntime", "openvino"):
        assert measured[f"screen, {backend}"] == pytest.approx(measured[PAPER], rel=1e-4)
        assert measured[f"{_FIRST}, {backend}"] == pytest.approx(witness, rel=1e-4)
    main(given, _here, **_TOY)
    assert json.loads(file.read_bytes())["rows"] == rows  # what was timed is not timed again

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda_graphs import Graph, stand_in
from torch import Tensor

from mnemoscope import BackendError, Detector
from mnemoscope_export import StableDiffusion, TorchBackend
from mnemoscope_export.torch.replayed import Replayed
from mnemoscope_runtime import Screener

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    return stand_in(monkeypatch)


def squared(named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return named["x"].square().sum(-1), named["x"] + named["y"]


def test_what_is_recorded_once_computes_anew_from_what_is_given(graphs: list[Graph]) -> None:
    run = Replayed(squared, CPU)
    for seed in range(4):
        given = {n: torch.rand(2, 3, generator=torch.manual_seed(seed)) for n in ("x", "y")}
        found = run(given)
        for one, two in zip(found, squared(given), strict=True):
            torch.testing.assert_close(one, two)
    assert [graph.replays for graph in graphs] == [4]


def test_what_it_returned_stays_as_it_was() -> None:
    run = Replayed(squared, CPU)
    first = run({"x": torch.ones(1, 3), "y": torch.zeros(1, 3)})
    run({"x": torch.full((1, 3), 5.0), "y": torch.zeros(1, 3)})
    assert first[0].tolist() == [3.0]


def test_each_shape_is_recorded_and_all_share_memory(graphs: list[Graph]) -> None:
    run = Replayed(squared, CPU)
    for rows in (1, 4, 1, 4, 2):
        found = run({"x": torch.ones(rows, 3), "y": torch.ones(rows, 3)})
        assert found[0].tolist() == [3.0] * rows
    assert [graph.replays for graph in graphs] == [2, 2, 1]
    assert [graph.shares for graph in graphs] == [None, *[graphs[0].pool()] * 2]
    run.close()
    run({"x": torch.ones(1, 3), "y": torch.ones(1, 3)})
    assert len(graphs) == 4


def test_the_backend_replays(
    model: StableDiffusion,
    bundle_dir: Path,
    graphs: list[Graph],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TorchBackend, "_fixes_sizes", True)
    backend = TorchBackend(model, batches=(1, 2))
    prompts = ["a photo of a cat", "a photo of two dogs", "rocket"]
    with (
        Screener.open(bundle_dir, backend=backend) as replayed,
        Screener.open(bundle_dir) as other,
    ):
        for asked in (prompts, prompts[::-1], prompts[:1]):
            found, expected = (each.first_step(asked) for each in (replayed, other))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        found, expected = (each.trajectory(prompts, steps=2) for each in (replayed, other))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert replayed.probe() < 1e-4
    assert sum(graph.replays for graph in graphs) > len(graphs)


def test_what_cannot_be_recorded(
    model: StableDiffusion,
    bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What reads a value on the host would be replayed with an old one."""
    monkeypatch.setattr(TorchBackend, "_fixes_sizes", True)
    forward = StableDiffusion.encode

    def asks(self: StableDiffusion, input_ids: Tensor) -> object:
        assert int(input_ids.max()) >= 0
        return forward(self, input_ids)

    monkeypatch.setattr(StableDiffusion, "encode", asks)
    with (
        Detector.load(
            bundle_dir, backend=TorchBackend(model, batches=(1,)), uncalibrated="score"
        ) as detector,
        pytest.raises(BackendError, match="PyTorch failed: operation not permitted"),
    ):
        detector.screen(["a cat"])

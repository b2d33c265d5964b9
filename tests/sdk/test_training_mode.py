"""Which layers do otherwise in training mode: told of each, and of nothing else."""

from __future__ import annotations

import pytest
from torch import nn

from mnemoscope.training_mode import differing


class Layer(nn.Module):
    def __init__(self, **attributes: object) -> None:
        super().__init__()
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.Dropout(1.0), "drops values at random (1)"),
        (nn.Dropout2d(0.25), "drops values at random (0.25)"),
        (Layer(drop_prob=0.1), "drops values at random (0.1)"),
        (nn.MultiheadAttention(4, 1, dropout=0.5), "drops values at random (0.5)"),
        (nn.RReLU(), "has slopes that are drawn at random"),
        (nn.BatchNorm1d(4), "normalises over the other samples of a batch"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "learns its averages of every pass"),
        (nn.InstanceNorm1d(4), None),
        (nn.Dropout(0.0), None),
        (nn.GroupNorm(2, 4), None),
        (Layer(p=2), None),  # of a norm
        (Layer(p="fro", base_layer=0), None),
    ],
)
def test_each_kind_of_layer(layer: nn.Module, what: str | None) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"it": layer}))
    found = [] if what is None else [("1.it", what)]
    assert list(differing(network.train())) == found
    assert list(differing(network.eval())) == []

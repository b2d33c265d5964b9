"""Windows of magnitudes, by timestep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mnemoscope import InputError
from mnemoscope.training import HardThreshold, QuantileThreshold
from mnemoscope.training.thresholds import Windows


def test_limits_follow_the_timestep() -> None:
    """Magnitudes that grow with t: each bin has its own quantile."""
    threshold = QuantileThreshold(quantile=0.9, factor=1.0, bins=4, window=500, warmup=10)
    windows = Windows(threshold, 1000)
    rng = np.random.default_rng(0)
    t = torch.from_numpy(rng.integers(0, 1000, 1600))
    values = (1 + t // 250) * torch.from_numpy(rng.uniform(0, 1, 1600))
    for part in range(0, 1600, 16):
        windows.add(t[part : part + 16], values[part : part + 16])
    limits = windows.limits(torch.tensor([0, 249, 250, 999]))
    expected = [np.quantile(values[t // 250 == b].float(), 0.9) for b in (0, 0, 1, 3)]
    np.testing.assert_allclose(limits, expected, rtol=1e-6)


def test_a_window_forgets() -> None:
    windows = Windows(QuantileThreshold(0.5, 1.0, bins=1, window=5, warmup=1), 1000)
    t = torch.zeros(3)
    for value in (1.0, 100.0, 7.0):
        windows.add(t, torch.tensor([value, value, value]))
    assert sorted(windows.values[0].tolist()) == [7, 7, 7, 100, 100]  # the last five of nine
    windows.add(torch.zeros(12), torch.arange(12.0))  # more than a window at once
    assert sorted(windows.values[0].tolist()) == [7, 8, 9, 10, 11]
    assert windows.counts.tolist() == [21]


def test_nothing_is_skipped_while_a_bin_warms_up() -> None:
    windows = Windows(QuantileThreshold(0.5, 1.0, bins=2, window=8, warmup=3), 1000)
    t = torch.tensor([100, 900])
    assert windows.limits(t).tolist() == [torch.inf, torch.inf]
    windows.add(torch.tensor([1, 2]), torch.tensor([1.0, 3.0]))
    assert windows.limits(t).tolist() == [torch.inf, torch.inf]
    windows.add(torch.tensor([3]), torch.tensor([2.0]))
    assert windows.limits(t).tolist() == [2, torch.inf]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantile": 0.0}, "between 0 and 1"),
        ({"quantile": 1.0}, "between 0 and 1"),
        ({"factor": 0.5}, "factor of at least 1"),
        ({"factor": float("nan")}, "factor of at least 1"),
        ({"bins": 0}, "at least one bin"),
        ({"warmup": 300}, "up to the window"),
        ({"warmup": 0}, "up to the window"),
        ({"window": 2.5}, "whole number"),
        ({"quantile": "high"}, "not a number"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuantileThreshold(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "2"])
def test_hard_thresholds_that_cannot_be(value: object) -> None:
    with pytest.raises(InputError):
        HardThreshold(value)  # type: ignore[arg-type]

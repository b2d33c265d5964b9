"""When a magnitude is too large: one value for all timesteps, or quantiles of each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mnemoscope_runtime import InputError
from mnemoscope_runtime.options import check_options

__all__ = ["HardThreshold", "QuantileThreshold", "Windows"]


@dataclass(frozen=True)
class HardThreshold:
    """One threshold for all timesteps, as in the paper (2 for its fine-tuned Stable Diffusion 1.4).

    Attributes:
        value: Samples with a magnitude above it are skipped. In eps units, > 0.
    """

    value: float

    def __post_init__(self) -> None:
        check_options("a number", value=self.value)
        if not 0 < self.value < float("inf"):
            raise InputError(f"A threshold of {self.value} skips all or nothing. Give a value > 0.")


@dataclass(frozen=True)
class QuantileThreshold:
    """A threshold for each range of timesteps, from the magnitudes that were seen there lately.

    A sample is skipped if its magnitude is above `factor` times the `quantile` of the last `window`
    magnitudes in its bin of timesteps. With a factor of 1 that is the share 1 - quantile of all
    samples, whether anything is memorised or not; with a larger one, only what stands out.

    Skipped samples count too: a quantile of those that were kept would sink from step to step.

    Attributes:
        quantile: In 0..1.
        factor: At least 1.
        bins: Ranges of timesteps, of equal width.
        window: Magnitudes that are remembered in each bin.
        warmup: Nothing is skipped in a bin that has seen fewer magnitudes than this.
    """

    quantile: float = 0.5
    factor: float = 1.5
    bins: int = 20
    window: int = 256
    warmup: int = 32

    def __post_init__(self) -> None:
        check_options("a number", quantile=self.quantile, factor=self.factor)
        check_options("a whole number", bins=self.bins, window=self.window, warmup=self.warmup)
        if not (0 < self.quantile < 1 and 1 <= self.factor < float("inf")):
            raise InputError(
                f"A quantile of {self.quantile} and a factor of {self.factor} set no threshold. "
                "Give a quantile between 0 and 1, and a factor of at least 1."
            )
        if self.bins < 1 or not 1 <= self.warmup <= self.window:
            raise InputError(
                f"{self.bins} bins with a window of {self.window} and a warmup of {self.warmup} "
                "set no threshold. Give at least one bin, and a warmup of 1 up to the window."
            )


class Windows:
    """The last magnitudes of every bin of timesteps.

    Attributes:
        values: NaN where there are none yet. # [bins, window], fp32
        counts: How many there have been. # [bins]
    """

    def __init__(self, threshold: QuantileThreshold, timesteps: int) -> None:
        """Empty windows over timesteps 0..`timesteps` - 1."""
        self._threshold, self._timesteps = threshold, timesteps
        self.values = torch.full((threshold.bins, threshold.window), torch.nan)
        self.counts = torch.zeros(threshold.bins, dtype=torch.int64)

    @property
    def warm(self) -> float:
        """Share of the bins that have seen enough, in 0..1."""
        return float((self.counts >= self._threshold.warmup).float().mean())

    def limits(self, timesteps: Tensor) -> Tensor:
        """Above which magnitude a sample is skipped; infinity while a bin warms up. # [B]"""
        rows = self._rows(timesteps)
        quantiles = self.values[rows].nanquantile(self._threshold.quantile, dim=1)
        ready = self.counts[rows] >= self._threshold.warmup
        return torch.where(ready, self._threshold.factor * quantiles, torch.inf)

    def add(self, timesteps: Tensor, magnitudes: Tensor) -> None:
        """Remember magnitudes, in their order. # [B] each"""
        rows = self._rows(timesteps)
        window = self.values.shape[1]
        for row in set(rows.tolist()):
            new = magnitudes[rows == row]
            self.counts[row] += len(new)
            last = new[-window:]
            slots = (self.counts[row] - len(last) + torch.arange(len(last))) % window
            self.values[row, slots] = last.float()

    def _rows(self, timesteps: Tensor) -> Tensor:
        rows = timesteps.long() * self._threshold.bins // self._timesteps
        return rows.clamp(0, self._threshold.bins - 1)

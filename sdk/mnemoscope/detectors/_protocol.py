"""What every detector is: a statistic of predictions, larger for memorised prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import CalibrationError, Prompts, Screener

from ..prompts.printable import counted

__all__ = ["Features", "Fit", "Scores", "Statistic"]

Features = NDArray[np.floating[Any]]
"""What a statistic is made of, [prompt, noise, step, feature]."""
Scores = NDArray[np.float64]
"""What a statistic makes of them, [prompt, noise]."""

_AGAIN = "Calibrate the bundle again with `mnemoscope calibrate`."


@dataclass(frozen=True)
class Fit:
    """Learned from benign prompts, and from memorised ones if there were any.

        z = sum_f weight_f (x_f - mean_f) / std_f

    Attributes:
        mean: Of each feature at each step. # [step][feature]
        std: Likewise, > 0. # [step][feature]
        weight: Of each feature. # [feature]

    Raises:
        CalibrationError: these are not of as many features at as many steps, or no such numbers.
    """

    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]
    weight: tuple[float, ...]

    def __post_init__(self) -> None:
        shapes = [list(map(len, rows)) for rows in (self.mean, self.std)]
        alike = shapes[0] == shapes[1] == [len(self.weight)] * self.steps
        means, stds = (list(chain.from_iterable(rows)) for rows in (self.mean, self.std))
        if not (alike and stds and min(stds) > 0):
            raise CalibrationError(f"What a detector learned does not fit together. {_AGAIN}")
        if not all(map(math.isfinite, (*means, *stds, *self.weight))):
            raise CalibrationError(f"What a detector learned is NaN or infinite. {_AGAIN}")

    @property
    def steps(self) -> int:
        """How many steps it was learned at."""
        return len(self.mean)

    def standardized(self, features: Features) -> Features:
        """(x - mean) / std, for the first steps.

        Returns:
            # [prompt, noise, step, feature]

        Raises:
            CalibrationError: it was learned of other features, or at fewer steps.
        """
        steps, count = features.shape[2:]
        if count != len(self.weight) or steps > self.steps:
            raise CalibrationError(
                f"What the detector learned is of {counted(len(self.weight), 'feature')} at "
                f"{counted(self.steps, 'step')}, and it measured {count} at {steps}. {_AGAIN}"
            )
        return np.asarray((features - np.array(self.mean)[:steps]) / np.array(self.std)[:steps])


class Statistic(Protocol):
    """Measures features of prompts and makes scores of them.

    Attributes:
        name: What `--detector` calls it.
        reference: Where it comes from.
        only_first: Whether it looks at pure noise alone, so that `steps` is 1.
        is_fitted: Whether it has no scores before it is calibrated.
        needs_torch: Whether it needs the model in PyTorch beside the bundle.
        draws: Whether it draws pictures and compares those of several noises, so that `steps` is
            all of them, and `noises` two or more.
    """

    name: str
    reference: str
    only_first: bool
    is_fitted: bool
    needs_torch: bool
    draws: bool

    def passes(self, steps: int) -> int:
        """Network passes per prompt and noise; the two branches count as two."""

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Graphs of the bundle that one step takes, to be loaded before the first prompt.

        Raises:
            InputError: the bundle has not what it looks at.
            BackendUnavailable: the backend has not.
        """

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Measure prompts; one that draws measures the last step alone.

        Returns:
            # [prompt, noise, step, feature]; [:, :m, :k] are what m noises and k steps give
        """

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """Scores of every noise, of the steps and noises given; a prompt's is their mean."""

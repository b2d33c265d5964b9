"""Intervals of a bootstrap over prompts.

`scipy.stats.bootstrap` says the same of single observations (the tests compare), but draws no
groups of them, and mitigation and `demo` do without SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap", "mean_interval"]

Scores = NDArray[np.floating[Any]]
Groups = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Interval:
    """An estimate with the 2.5 % and 97.5 % percentiles of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistic: Callable[[Scores, Scores], float],
    positives: Scores,
    negatives: Scores,
    *,
    groups: tuple[Groups, Groups] | None = None,
    repetitions: int = 1000,
    seed: int = 0,
) -> Interval:
    """A statistic with its 95 % percentile interval, resampling both sets of prompts.

    Near duplicates score alike, so that a prompt with twenty of them is not twenty observations:
    with `groups`, whole groups are drawn and the interval is as wide as it has to be. The same
    seed draws the same groups, whatever the scores.

    Args:
        statistic: Of the scores of positives and negatives.
        positives: Scores, or several of each prompt. # [positive, ...]
        negatives: # [negative, ...]
        groups: Numbers of the groups that the positives and the negatives belong to, of
            `near_duplicates`; each prompt is its own by default. # [positive], [negative]
        repetitions: Resamples.
        seed: Of the resampling.
    """
    value = statistic(positives, negatives)
    both = (positives, negatives)
    kinds = groups or tuple(np.arange(len(scores)) for scores in both)
    numbered = [np.unique(kind, return_inverse=True)[1] for kind in kinds]
    rng = np.random.default_rng(seed)

    def resampled(scores: Scores, group: Groups) -> Scores:
        count = int(group.max()) + 1
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        return np.repeat(scores, times[group], axis=0)

    values = [statistic(*map(resampled, both, numbered)) for _ in range(repetitions)]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def mean_interval(values: Scores, repetitions: int = 1000, seed: int = 0) -> Interval:
    """A mean with its 95 % percentile interval.

    Args:
        values: Of each prompt. # [prompt]
        repetitions: Resamples.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (repetitions, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))

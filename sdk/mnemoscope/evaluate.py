"""How well scores tell memorised prompts from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

__all__ = ["Interval", "auc", "bootstrap", "tpr_at_fpr"]

Scores = NDArray[np.floating]


def auc(positives: Scores, negatives: Scores) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2 (Mann-Whitney).

    Raises:
        InputError: no positives or no negatives.
    """
    _check(positives, negatives)
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left")
    not_above = np.searchsorted(ordered, positives, "right")
    return float((below + not_above).mean() / 2 / len(negatives))


def tpr_at_fpr(positives: Scores, negatives: Scores, fpr: float = 0.01) -> float:
    """Share of positives above the lowest threshold whose false-positive rate is below `fpr`.

    Strictly below, as in Wen et al.'s code: with 100 negatives and 1 %, none may be above.

    Raises:
        InputError: no positives or no negatives, or a rate outside 0..1.
    """
    _check(positives, negatives)
    if not 0 < fpr <= 1:
        raise InputError(f"A false-positive rate lies between 0 and 1, {fpr} does not.")
    count = len(negatives)
    nearest = round(fpr * count)
    allowed = nearest if nearest / count < fpr else nearest - 1  # 0.07 of 100 is 7, not 7.0...01
    threshold = np.sort(negatives)[count - 1 - allowed]
    return float((positives > threshold).mean())


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
    repetitions: int = 1000,
    seed: int = 0,
) -> Interval:
    """A statistic with its 95 % percentile interval, resampling both sets of prompts."""
    value = statistic(positives, negatives)
    rng = np.random.default_rng(seed)
    values = [
        statistic(
            rng.choice(positives, len(positives)),
            rng.choice(negatives, len(negatives)),
        )
        for _ in range(repetitions)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _check(positives: Scores, negatives: Scores) -> None:
    if not len(positives) or not len(negatives):
        raise InputError(
            f"{len(positives)} memorised and {len(negatives)} other prompts cannot be told apart. "
            "Give some of each."
        )

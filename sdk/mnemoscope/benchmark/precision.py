"""What a lower precision, or another backend, changes in what is said of prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.errors import InputError, ParityError

from ..evaluate import auc, tpr_at_fpr

__all__ = ["Comparison", "compare"]

TPR_LOSS = 0.005  # more than half a point of TPR@1%FPR is too much
BENIGN = 100  # with fewer there is no 1 % of them

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Comparison:
    """Scores of the same prompts, measured in two ways.

    Attributes:
        prompts: How many prompts were compared.
        median_error: Median of |other - reference| / reference, or over what float32 resolves.
        largest_error: The largest of them.
        rank_correlation: Spearman's, in -1..1.
        auc: Of the reference and of the other; None without memorised prompts.
        tpr: TPR@1%FPR, likewise; None also with fewer than BENIGN other prompts.
    """

    prompts: int
    median_error: float
    largest_error: float
    rank_correlation: float
    auc: tuple[float, float] | None
    tpr: tuple[float, float] | None

    def check(self) -> None:
        """Judge the other way of measuring by TPR@1%FPR.

        Raises:
            InputError: there were too few prompts to know it.
            ParityError: it falls by more than half a point.
        """
        if self.tpr is None:
            raise InputError(
                f"TPR@1%FPR needs memorised prompts and {BENIGN} others or more. Give more with "
                "--positives and --benign, or pass --force to compare the scores alone."
            )
        lost = self.tpr[0] - self.tpr[1]
        if lost > TPR_LOSS * (1 + 1e-9):  # one of 200 is half a point, whatever rounding says
            raise ParityError(
                f"TPR@1%FPR falls from {self.tpr[0]:.3f} to {self.tpr[1]:.3f} (more than "
                f"{TPR_LOSS}). Use a higher precision, or pass --force to accept it."
            )


def compare(
    reference: Scores, other: Scores, memorized: NDArray[np.bool_], floor: float = 0.0
) -> Comparison:
    """Compare scores, prompt by prompt.

    Args:
        reference: Scores to be reproduced. # [prompt], > 0
        other: Scores of the lower precision. # [prompt]
        memorized: Which prompts the model memorised; AUC and TPR need some of each. # [prompt]
        floor: Errors count relative to the score or to this: `Screener.smallest_magnitude`.

    Raises:
        InputError: fewer than two prompts, or different numbers of them.
    """
    if len(reference) < 2 or not len(reference) == len(other) == len(memorized):
        raise InputError(
            f"{len(reference)}, {len(other)} and {len(memorized)} scores cannot be compared. "
            "Measure the same two or more prompts both times."
        )
    errors = relative_error(other, reference, floor)

    def judged(statistic: Callable[[Scores, Scores], float]) -> tuple[float, float] | None:
        if memorized.all() or not memorized.any():
            return None
        first, second = (statistic(s[memorized], s[~memorized]) for s in (reference, other))
        return first, second

    return Comparison(
        prompts=len(reference),
        median_error=float(np.median(errors)),
        largest_error=float(errors.max()),
        rank_correlation=float(np.corrcoef(_ranks(reference), _ranks(other))[0, 1]),
        auc=judged(auc),
        tpr=judged(tpr_at_fpr) if np.sum(~memorized) >= BENIGN else None,
    )


def _ranks(scores: Scores) -> NDArray[np.float64]:
    """Ranks from 0; equal scores share the mean of theirs."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts + 1) / 2)[inverse], np.float64)

"""How well scores tell memorised prompts from others.

By hand and not by scikit-learn, which says the same (the tests compare) but takes a hundred times
as long for an AUC, of which a bootstrap takes thousands, and is not there where `demo` needs one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

__all__ = [
    "auc",
    "balanced_accuracy",
    "roc",
    "tpr_at_fpr",
    "tpr_nearest_fpr",
]

Scores = NDArray[np.floating[Any]]
_EQUAL = 1e-12  # rates are whole numbers over counts: what differs by less differs by rounding


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


def tpr_nearest_fpr(positives: Scores, negatives: Scores, fpr: float = 0.01) -> float:
    """The highest true-positive rate where the false-positive rate is as close as it gets to `fpr`.

    The ROC point that Jeon et al. (2025) and Asthana and Belagiannis (2026) take, except that of
    several at that rate their code takes the lowest (0 for a perfect detector). Of two rates that
    are equally close it is the lower.

    Raises:
        InputError: no positives or no negatives, or a rate outside 0..1.
    """
    false, true = roc(positives, negatives)
    if not 0 < fpr <= 1:
        raise InputError(f"A false-positive rate lies between 0 and 1, {fpr} does not.")
    distance = np.abs(false - fpr)
    closest = false[distance <= distance.min() + _EQUAL].min()
    return float(true[false == closest].max())


def balanced_accuracy(positives: Scores, negatives: Scores) -> float:
    """The best (TPR + 1 - FPR) / 2 of any threshold: "accuracy" in Wen et al.'s code.

    Raises:
        InputError: no positives or no negatives.
    """
    false, true = roc(positives, negatives)
    return float((1 + true - false).max() / 2)


def roc(positives: Scores, negatives: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ROC curve: false- and true-positive rates of every threshold, ascending from 0 to 1.

    Raises:
        InputError: no positives or no negatives.
    """
    _check(positives, negatives)
    cuts = np.unique(np.concatenate([positives, negatives]))[::-1]
    false, true = (
        np.r_[0, 1 - np.searchsorted(np.sort(scores), cuts, "left") / len(scores)]
        for scores in (negatives, positives)
    )
    return false, true


def _check(positives: Scores, negatives: Scores) -> None:
    if not len(positives) or not len(negatives):
        raise InputError(
            f"{len(positives)} memorised and {counted(len(negatives), 'other prompt')} cannot be "
            "told apart. Give some of each."
        )

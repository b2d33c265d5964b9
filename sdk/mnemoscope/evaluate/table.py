"""The detection table: what scores are worth, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import Interval, bootstrap
from .metrics import auc, balanced_accuracy, tpr_at_fpr, tpr_nearest_fpr
from .prompt_lists import PromptLists
from .scoring import Scored

__all__ = ["Row", "judge"]

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Row:
    """How well one detector tells positives, or those of one label, from all negatives.

    Attributes:
        detector: Its name.
        steps: Denoising steps.
        noises: Noises.
        label: Which positives; None for all.
        positives: How many they are.
        auc: Area under the ROC curve.
        tpr: TPR at a false-positive rate strictly below 1 % (Wen et al.).
        tpr_nearest: TPR at the ROC point closest to 1 % (Jeon et al., Asthana and Belagiannis).
        accuracy: The best balanced accuracy of any threshold.
        passes: Network passes per prompt.
        seconds: Per prompt.
    """

    detector: str
    steps: int
    noises: int
    label: str | None
    positives: int
    auc: Interval
    tpr: Interval
    tpr_nearest: Interval
    accuracy: Interval
    passes: int
    seconds: float


def judge(scored: Sequence[Scored], lists: PromptLists, *, repetitions: int = 1000) -> list[Row]:
    """A row for each setting, and then one for each label of the positives.

    Args:
        scored: Of `score`.
        lists: The prompts that were scored.
        repetitions: Resamples of the groups of near duplicates.
    """
    labels = np.array(lists.labels, object)
    every: dict[str | None, NDArray[np.bool_]] = {None: np.ones(len(lists.positives), bool)}
    kinds = {label: labels == label for label in dict.fromkeys(lists.labels)}
    of_positives, of_negatives = lists.groups_of_each

    def row(each: Scored, label: str | None, chosen: NDArray[np.bool_]) -> Row:
        positives = each.scores[lists.memorized][chosen]
        negatives = each.scores[~lists.memorized]
        groups = of_positives[chosen], of_negatives

        def interval(statistic: Callable[[Scores, Scores], float]) -> Interval:
            return bootstrap(
                statistic, positives, negatives, groups=groups, repetitions=repetitions
            )

        return Row(
            detector=each.detector,
            steps=each.steps,
            noises=each.noises,
            label=label,
            positives=len(positives),
            auc=interval(auc),
            tpr=interval(tpr_at_fpr),
            tpr_nearest=interval(tpr_nearest_fpr),
            accuracy=interval(balanced_accuracy),
            passes=each.passes,
            seconds=each.seconds,
        )

    return [
        row(each, label, chosen)
        for part in (every, kinds)
        for each in scored
        for label, chosen in part.items()
    ]

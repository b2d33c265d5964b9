"""Which prompts of a file are flagged, once all are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..calibration import Calibration
from ..calibration.conformal import rejected
from .deciding import GROUPED, READ, group
from .source import Source

__all__ = ["Judged", "judge"]

_HIGHEST = 20  # that are shown if none is flagged


@dataclass(frozen=True, eq=False)
class Judged:
    """What is flagged among the distinct prompts of a file.

    Attributes:
        p_values: # [distinct]
        flagged: # [distinct]
        groups: From 1; 0 for those that are not flagged or not grouped. # [distinct]
        shown: The flagged, or the highest if there are none, the worst first: places to prompts.
    """

    p_values: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    groups: NDArray[np.int64]
    shown: dict[int, str]


def judge(
    source: Source,
    scores: NDArray[np.float64],
    calibration: Calibration,
    fdr: float,
    dependent: bool,
    tell: Callable[[str], None],
) -> Judged:
    """Flag prompts at a false-discovery rate, and group them.

    Args:
        source: The prompts.
        scores: Of the distinct. # [distinct]
        calibration: What makes p-values of scores.
        fdr: See `audit`.
        dependent: See `audit`.
        tell: Told if not all are grouped.
    """
    p_values = calibration.p_values(scores)
    flagged = rejected(p_values, fdr, dependent=dependent)
    order = np.argsort(-scores, kind="stable")  # the flagged come first
    count = int(flagged.sum())
    if count > GROUPED:
        tell(f"only the {GROUPED:,} highest scores of the {count:,} flagged prompts are grouped.")
    worst = order[: min(count, GROUPED) or _HIGHEST]
    shown = dict.fromkeys(worst.tolist(), "")
    for place, prompt in enumerate(source.prompts()):
        if place in shown:
            shown[place] = prompt[:READ]
    groups = np.zeros(len(flagged), np.int64)
    if count:
        groups[worst] = group(list(shown.values()))
    return Judged(p_values, flagged, groups, shown)

"""What another threshold than the calibrated one would cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mnemoscope_runtime.errors import InputError

from .calibration import Calibration
from .conformal import proportion_interval, statistics

__all__ = ["Moved", "move"]


@dataclass(frozen=True)
class Moved:
    """A threshold, and what would be flagged above it.

    Attributes:
        threshold: The threshold.
        benign: How many benign prompts were calibrated ...
        benign_above: ... and how many of them score higher.
        fpr: With the confidence of the calibration, at most this share of benign prompts to come
            scores higher. It holds for a threshold that was chosen before anybody looked at these
            scores; of many that are tried, the best looks better than it is.
        positives: How many memorised prompts there are ...
        positives_above: ... and how many of them score higher.
        tpr: The share of them, with its exact 95 % interval; None without any.
    """

    threshold: float
    benign: int
    benign_above: int
    fpr: float
    positives: int
    positives_above: int
    tpr: tuple[float, float, float] | None


def move(calibration: Calibration, threshold: float) -> Moved:
    """What a threshold would cost; the calibration stays as it is.

    Args:
        calibration: Benign scores, and memorised ones if it has some.
        threshold: In units of its scores.

    Raises:
        InputError: the threshold is no number.
        BackendUnavailable: SciPy is not installed.
    """
    if not math.isfinite(threshold):
        raise InputError(f"A threshold is a number, unlike {threshold}. Give one.")
    count, known = len(calibration.scores), len(calibration.positives)
    above = sum(score > threshold for score in calibration.scores)
    hits = sum(score > threshold for score in calibration.positives)
    tpr = None if not known else (hits / known, *proportion_interval(hits, known))
    return Moved(
        threshold=threshold,
        benign=count,
        benign_above=above,
        fpr=_most(count, above, calibration.delta / calibration.among),
        positives=known,
        positives_above=hits,
        tpr=tpr,
    )


def _most(count: int, above: int, delta: float) -> float:
    """The rate at which no more than so many lie above with a probability of delta."""
    if above == count:
        return 1.0
    return float(statistics().beta.isf(delta, above + 1, count - above))

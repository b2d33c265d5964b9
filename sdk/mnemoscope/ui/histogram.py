"""Calibrated scores as bars, and a verdict's place among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..calibration import Calibration
from ..screening.detection import Detection

__all__ = ["HEIGHT", "WIDTH", "Bar", "Gauge", "bars", "gauge", "span"]

WIDTH, HEIGHT = 600, 220  # of the drawing, in its own units
_BINS = 60
_USUAL = (0.05, 0.95)  # quantiles of benign scores between which most lie


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in units of the drawing, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Gauge:
    """Where a score lies, in percent of a line.

    Attributes:
        low: Score at the beginning of the line ...
        high: ... and at its end.
        score: The score ...
        needle: ... and its place.
        threshold: The threshold ...
        limit: ... and its place.
        usual: Where the middle nine tenths of the benign scores begin, and how wide that is.
    """

    low: float
    high: float
    score: float
    needle: float
    threshold: float
    limit: float
    usual: tuple[float, float]


def gauge(found: Detection, benign: Sequence[float]) -> Gauge | None:
    """A verdict's place among benign scores; None if there is no verdict.

    Args:
        found: What was measured.
        benign: Scores, ascending.
    """
    if found.memorized is None or found.threshold is None or not benign:
        return None
    score, threshold = found.score, found.threshold
    low, high = min(0.0, score, benign[0]), max(score, threshold, benign[-1])
    high += (high - low) / 20

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    begin, end = (place(float(each)) for each in np.quantile(benign, _USUAL))
    return Gauge(low, high, score, place(score), threshold, place(threshold), (begin, end - begin))


def span(calibration: Calibration) -> tuple[float, float]:
    """From the lowest to the highest score, and a little more, so that nothing is at the edge."""
    scores = (*calibration.scores, *calibration.positives, calibration.threshold)
    low, high = min(scores), max(scores)
    edge = (high - low) / 50 or 1.0
    return low - edge, high + edge


def bars(
    scores: Sequence[float], low: float, high: float, most: float
) -> tuple[list[Bar], NDArray[np.float64]]:
    """A histogram.

    Args:
        scores: What is counted.
        low: Where the drawing begins ...
        high: ... and ends.
        most: The share that is as high as the drawing.

    Returns:
        Its bars, empty ones left out; and the share of all in each bin. # [bin]
    """
    counts, _ = np.histogram(scores, _BINS, (low, high))
    shares = np.asarray(counts / max(1, len(scores)), np.float64)
    width = WIDTH / _BINS
    found = [
        Bar(k * width, HEIGHT * (1 - share / most), width, HEIGHT * share / most)
        for k, share in enumerate(shares.tolist())
        if share
    ]
    return found, shares

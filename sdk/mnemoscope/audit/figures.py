"""The plots of an audit's report, as PNG in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..plotting import new_figure, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["blank", "p_value_plot", "score_histogram"]

Values = NDArray[np.floating[Any]]


def blank() -> Figure:
    """An empty figure.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    return new_figure(6, 3.6, otherwise="leave out --report")


def score_histogram(
    scores: Values, flagged: NDArray[np.bool_], benign: Values, detector: str
) -> bytes:
    """How scores are distributed, and those of the benign prompts that they are compared with."""
    figure = blank()
    axes = figure.subplots()
    low, high = min(scores.min(), benign.min()), max(scores.max(), benign.max())
    bins = np.linspace(low, high if high > low else low + 1, 61)
    parts = (
        (scores[~flagged], f"not flagged ({(~flagged).sum():,})", {"alpha": 0.6}),
        (scores[flagged], f"flagged ({flagged.sum():,})", {"alpha": 0.6}),
        (benign, f"benign, calibration ({len(benign):,})", {"fill": False, "edgecolor": "black"}),
    )
    for values, label, look in parts:
        if len(values):
            counts = np.histogram(values, bins)[0]
            axes.stairs(counts / counts.sum(), bins, label=label, **({"fill": True} | look))
    axes.set(xlabel=f"score ({detector})", ylabel="share of each")
    axes.legend(fontsize="small")
    return png(figure)


def p_value_plot(p: Values, limits: Values) -> bytes:
    """p-values in ascending order and what they have to be below, on logarithmic axes.

    Args:
        p: # [prompt]
        limits: Of the k-th smallest. # [prompt]
    """
    figure = blank()
    axes = figure.subplots()
    values, counts = np.unique(p, return_counts=True)  # few: multiples of 1 / (n + 1)
    ranks = np.append(1, counts.cumsum())
    axes.step(ranks, np.append(values[0], values), where="pre", label="p-values")
    ends = np.array([0, len(limits) - 1])
    axes.plot(ends + 1, limits[ends], "--", color="black", label="limit: below it is flagged")
    axes.plot(ends + 1, (ends + 1) / len(limits), ":", color="grey", label="if all were benign")
    axes.set(xlabel="rank", ylabel="p-value", xscale="log", yscale="log")
    axes.legend(fontsize="small")
    return png(figure)

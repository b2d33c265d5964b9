"""ROC curves and histograms of an evaluation, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..plotting import new_figure, png
from ..prompts.printable import counted
from .metrics import auc, roc
from .report import Evaluation
from .scoring import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["blank", "histograms", "roc_curves"]


def blank(width: float, height: float) -> Figure:
    """An empty figure.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    return new_figure(width, height, extra="calibrate,plot", otherwise="leave --output out")


def roc_curves(evaluation: Evaluation) -> bytes:
    """Of the last setting of every detector."""
    figure = blank(7, 4.5)
    axes, known = figure.subplots(), evaluation.lists.memorized
    for each in _last(evaluation):
        both = each.scores[known], each.scores[~known]
        axes.plot(*roc(*both), label=f"{_name(each)}, AUC {auc(*both):.3f}")
    axes.axvline(0.01, color="grey", linestyle=":", label="1 % false positives")
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right", fontsize="small")
    return png(figure)


def histograms(evaluation: Evaluation) -> bytes:
    """Scores of both lists, by the last setting of every detector."""
    shown, known = _last(evaluation), evaluation.lists.memorized
    figure = blank(7, 2.2 * len(shown))
    for axes, each in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        bins = np.histogram_bin_edges(each.scores, 50).tolist()
        for name, of in (("other", ~known), ("memorised", known)):
            label = f"{name} ({int(of.sum())})"
            axes.hist(each.scores[of], bins, alpha=0.7, density=True, label=label)
        axes.set(xlabel=_name(each), ylabel="density")
        axes.legend(fontsize="small")
    return png(figure)


def _last(evaluation: Evaluation) -> list[Scored]:
    return list({each.detector: each for each in evaluation.scored}.values())


def _name(each: Scored) -> str:
    return f"{each.detector}, {counted(each.steps, 'step')}, {counted(each.noises, 'noise')}"

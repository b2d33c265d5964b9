"""A look at scores of memorised and other prompts: figures, a plot, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..outputs import write_file
from ..plotting import new_figure, png
from ..prompts.printable import json_text
from ..screening.detection import Detection
from .intervals import Interval, bootstrap
from .metrics import auc, roc, tpr_at_fpr

__all__ = ["plot", "summary", "write_json"]

Scores = NDArray[np.floating[Any]]


def summary(memorized: Sequence[Detection], others: Sequence[Detection]) -> dict[str, Interval]:
    """AUC and TPR@1%FPR with bootstrap intervals."""
    positives = np.array([detection.score for detection in memorized])
    negatives = np.array([detection.score for detection in others])
    return {
        "auc": bootstrap(auc, positives, negatives),
        "tpr_at_1_percent_fpr": bootstrap(tpr_at_fpr, positives, negatives),
    }


def write_json(
    path: Path,
    figures: dict[str, Interval],
    memorized: Sequence[Detection],
    others: Sequence[Detection],
) -> None:
    """Write figures and every detection, with a `label` of what the prompt is."""
    rows = [{"label": "memorized", **asdict(d)} for d in memorized]
    rows += [{"label": "other", **asdict(d)} for d in others]
    figures_json = {name: asdict(interval) for name, interval in figures.items()}
    text = json_text({"figures": figures_json, "detections": rows}, indent=1)
    write_file(path, f"{text}\n".encode())


def plot(
    path: Path,
    memorized: Scores,
    others: Scores,
    *,
    threshold: float | None,
    label: str = "magnitude of the text-conditional noise prediction",
) -> None:
    """Histograms of the scores with the threshold and, with memorised ones, the ROC curve, as PNG.

    Args:
        path: File to write.
        memorized: Scores of memorised prompts; there may be none. # [prompt]
        others: Scores of other prompts. # [prompt]
        threshold: Above it a prompt counts as memorised.
        label: What the scores are.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    figure = new_figure(10 if len(memorized) else 5, 4)
    left, *rest = figure.subplots(1, 2 if len(memorized) else 1, squeeze=False)[0]
    both = np.concatenate([memorized, others])
    low, high = min(0.0, both.min()), max(0.0, both.max())
    width = high - low or 1.0
    bins = np.linspace(low, low + 1.02 * width, 50).tolist()
    left.hist(others, bins, alpha=0.7, density=True, label=f"benign ({len(others)})")
    if len(memorized):
        name = f"memorised ({len(memorized)})"
        left.hist(memorized, bins, alpha=0.7, density=True, label=name)
    if threshold is not None:
        left.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    left.set(xlabel="score", ylabel="density")
    left.legend()
    figure.suptitle("\n".join(wrap(label, 100 if len(memorized) else 52)), fontsize="medium")
    for axes in rest:
        axes.plot(*roc(memorized, others))
        axes.axvline(0.01, color="grey", linestyle=":", label="1 % false positives")
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), title=f"AUC {auc(memorized, others):.3f}")
        axes.legend(loc="lower right")
    write_file(path, png(figure), "Choose another file.")

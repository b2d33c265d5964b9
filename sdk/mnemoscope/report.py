"""A look at scores of memorised and other prompts: figures, a plot, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mnemoscope_runtime.errors import BackendUnavailable, InputError

from .detector import Detection
from .evaluate import Interval, auc, bootstrap, tpr_at_fpr

__all__ = ["plot", "summary", "write_json"]


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
    text = json.dumps({"figures": figures_json, "detections": rows}, indent=1, ensure_ascii=False)
    try:
        path.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}.") from None


def plot(
    path: Path,
    figures: dict[str, Interval],
    memorized: Sequence[Detection],
    others: Sequence[Detection],
) -> None:
    """Histograms of the scores with the threshold, and the ROC curve, as PNG.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable(
            f"Plots need matplotlib: {error}. Install it with `pip install 'mnemoscope[plot]'`."
        ) from None
    positives = np.array([detection.score for detection in memorized])
    negatives = np.array([detection.score for detection in others])
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)

    largest = max(positives.max(), negatives.max()) or 1.0
    bins = np.linspace(0, largest * 1.02, 50).tolist()
    left.hist(negatives, bins, alpha=0.7, density=True, label=f"other ({len(negatives)})")
    left.hist(positives, bins, alpha=0.7, density=True, label=f"memorised ({len(positives)})")
    threshold = memorized[0].threshold
    if threshold is not None:
        left.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    left.set(xlabel="magnitude of the text-conditional noise prediction", ylabel="density")
    left.legend()

    cuts = np.sort(np.concatenate([positives, negatives]))[::-1]
    fpr = [0.0, *((negatives >= cut).mean() for cut in cuts)]
    tpr = [0.0, *((positives >= cut).mean() for cut in cuts)]
    right.plot(fpr, tpr)
    right.axvline(0.01, color="grey", linestyle=":", label="1 % false positives")
    right.set(xlabel="false-positive rate", ylabel="true-positive rate", xscale="symlog")
    right.set_xscale("symlog", linthresh=0.01)
    right.set(xlim=(0, 1), ylim=(0, 1.01), title=f"AUC {figures['auc']}")
    right.legend(loc="lower right")
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}.") from None

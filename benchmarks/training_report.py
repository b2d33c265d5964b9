"""The runs of `benchmarks.training` as a table and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mnemoscope.plotting import new_figure

from .second_opinion import CUTS, HEADER


def table(rows: Sequence[dict], arms: Sequence[str]) -> Table:
    """Means over seeds; in brackets the lowest and the highest seed."""
    named = "arm", "repeats", "copy similarity", "copied", *HEADER
    found = Table(*named, "CLIP score", "others' CLIP score")

    def over(values: list[float]) -> str:
        return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"

    for arm, repeats in _cells(rows, arms):
        cells = _levels(rows, arm, repeats)
        found.add_row(
            arm,
            str(repeats),
            over([float(np.mean(each["copy"])) for each in cells]),
            f"{np.mean([each['copied'] for each in cells]):.0%}",
            *_by_sscd(cells),
            over([float(np.mean(each["alignment"])) for each in cells]),
            over([float(np.mean(each["others"])) for each in cells]),
        )
    return found


def _by_sscd(cells: Sequence[dict]) -> list[str]:
    """Shares of the draws above each cut; empty where a run was not judged by it."""
    if not all("sscd" in each for each in cells):
        return [""] * len(CUTS)
    cosines = np.array([each["sscd"] for each in cells])
    return [f"{(cosines > cut).mean():.0%}" for cut in CUTS]


def plot(path: Path, rows: Sequence[dict], arms: Sequence[str]) -> None:
    """Copy similarity by repeats, and against the CLIP score; small dots are single seeds."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    cells = _cells(rows, arms)
    for arm in dict.fromkeys(arm for arm, _ in cells):
        levels = [repeats for each, repeats in cells if each == arm]
        runs = [_levels(rows, arm, repeats) for repeats in levels]
        copies = np.array([[np.mean(each["copy"]) for each in level] for level in runs])
        clip = np.array([[np.mean(each["alignment"]) for each in level] for level in runs])
        (line,) = left.plot(levels, copies.mean(1), marker="o", label=arm)
        left.fill_between(levels, copies.min(1), copies.max(1), alpha=0.15, color=line.get_color())
        right.scatter(clip, copies, color=line.get_color(), alpha=0.3, s=12)
        right.scatter(clip.mean(1), copies.mean(1), color=line.get_color(), s=60)
        for x, y, repeats in zip(clip.mean(1), copies.mean(1), levels, strict=True):
            right.annotate(str(repeats), (x, y), (5, 3), textcoords="offset points", fontsize=8)
    left.set(xlabel="times each duplicated picture was trained on", ylabel="copy similarity")
    right.set(xlabel="CLIP score", ylabel="copy similarity")
    left.legend()
    figure.savefig(path, dpi=110)


def _cells(rows: Sequence[dict], arms: Sequence[str]) -> list[tuple[str, int]]:
    found = {(row["arm"], level["repeats"]): None for row in rows for level in row["levels"]}
    return sorted(found, key=lambda cell: (arms.index(cell[0]), cell[1]))


def _levels(rows: Sequence[dict], arm: str, repeats: int) -> list[dict]:
    return [
        level
        for row in rows
        for level in row["levels"]
        if row["arm"] == arm and level["repeats"] == repeats
    ]

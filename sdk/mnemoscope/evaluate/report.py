"""An evaluation as JSON, and as grids of text to be shown anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..prompts.printable import counted
from .intervals import Interval
from .prompt_lists import PromptLists
from .scoring import Scored
from .table import Row
from .text_only import STYLE_LIMITS, differs

__all__ = ["Evaluation", "Grid"]

_HIGHEST, _WIDTH = 10, 160
_FIGURES = (
    *("AUC [95 %]", "TPR, FPR < 1 % [95 %]", "TPR, FPR nearest 1 % [95 %]", "accuracy [95 %]"),
    *("passes", "s/prompt"),
)


@dataclass(frozen=True)
class Grid:
    """A table of text; what came from files is printable, but not escaped."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Evaluation:
    """What was judged, on what, and how well it did.

    Attributes:
        subject: The model, the bundle and how it was measured.
        environment: The machine and the versions.
        lists: The prompts.
        scored: What every detector said of every prompt.
        rows: How well that tells positives from negatives.
        style: AUC of the lists by text alone.
    """

    subject: Mapping[str, str]
    environment: Mapping[str, str]
    lists: PromptLists
    scored: Sequence[Scored]
    rows: Sequence[Row]
    style: Mapping[str, Interval]

    @property
    def notes(self) -> list[str]:
        """What to know before believing the figures."""
        notes = [*self.lists.notes]
        if found := [name for name, interval in self.style.items() if differs(interval)]:
            low, high = STYLE_LIMITS
            notes.append(
                f"The lists differ in style or subject ({', '.join(found)}: AUC outside "
                f"{low}..{high} from the text alone). A detector could score this by reading "
                "style; use style-matched negatives."
            )
        if learnt := sorted({each.detector for each in self.scored if each.cross_fitted}):
            notes.append(
                f"{', '.join(learnt)}: learned from one half of the prompts and judged on the "
                "other, both ways; near duplicates are in one half."
            )
        return notes

    def as_json(self) -> dict[str, Any]:
        """Everything, with the score of every prompt."""
        known = self.lists.memorized
        labels = self.lists.labels or (None,) * len(self.lists.positives)
        return {
            "subject": dict(self.subject),
            "environment": dict(self.environment),
            "notes": self.notes,
            "lists": {
                name: {"prompts": len(prompts), "groups": groups, "sha256": sha256}
                for name, prompts, groups, sha256 in self._sides()
            },
            "style": {name: asdict(interval) for name, interval in self.style.items()},
            "rows": [asdict(row) for row in self.rows],
            "positives": [
                {"prompt": prompt, "label": label}
                for prompt, label in zip(self.lists.positives, labels, strict=True)
            ],
            "negatives": [{"prompt": prompt} for prompt in self.lists.negatives],
            "scores": [
                {
                    "detector": each.detector,
                    "steps": each.steps,
                    "noises": each.noises,
                    "cross_fitted": each.cross_fitted,
                    "positives": _rounded(each.scores[known]),
                    "negatives": _rounded(each.scores[~known]),
                }
                for each in self.scored
            ],
        }

    def grids(self) -> list[Grid]:
        """The tables for people."""
        whole = [row for row in self.rows if row.label is None]
        parts = [row for row in self.rows if row.label is not None]
        where = ("detector", "steps", "noises")
        grids = [Grid("Detection", (*where, *_FIGURES), tuple(map(_figures, whole)))]
        if parts:
            grids.append(
                Grid(
                    "By label, against all other prompts",
                    ("label", "prompts", *where, *_FIGURES),
                    tuple(
                        (_shown(row.label or ""), str(row.positives), *_figures(row))
                        for row in parts
                    ),
                )
            )
        grids.append(
            Grid(
                "Text alone, without the model",
                ("by", "AUC [95 %]", "style"),
                tuple(
                    (name, str(interval), "differs" if differs(interval) else "")
                    for name, interval in self.style.items()
                ),
            )
        )
        grids.append(
            Grid(
                "Prompts",
                ("list", "prompts", "groups of near duplicates", "sha256, one a line"),
                tuple((n, str(len(p)), str(g), sha[:16]) for n, p, g, sha in self._sides()),
            )
        )
        return grids

    def highest(self) -> Grid:
        """The other prompts that score highest, where a wrong label shows first."""
        best = max((row for row in self.rows if row.label is None), key=lambda row: row.auc.value)
        where = (best.detector, best.steps, best.noises)
        scores = next(s for s in self.scored if (s.detector, s.steps, s.noises) == where).scores
        scores = scores[~self.lists.memorized]
        order = np.argsort(-scores, kind="stable")[:_HIGHEST]
        return Grid(
            f"Other prompts that score highest ({best.detector}, "
            f"{counted(best.steps, 'step')}, {counted(best.noises, 'noise')})",
            ("score", "prompt"),
            tuple((f"{scores[i]:.5g}", _shown(self.lists.negatives[i])) for i in order),
        )

    def _sides(self) -> list[tuple[str, tuple[str, ...], int, str]]:
        sides = zip(
            ("positives", "negatives"),
            (self.lists.positives, self.lists.negatives),
            self.lists.group_counts,
            strict=True,
        )
        return [(name, prompts, count, _sha256(prompts)) for name, prompts, count in sides]


def _figures(row: Row) -> tuple[str, ...]:
    return (
        row.detector,
        str(row.steps),
        str(row.noises),
        *map(str, (row.auc, row.tpr, row.tpr_nearest, row.accuracy)),
        str(row.passes),
        f"{row.seconds:.3g}",
    )


def _shown(text: str) -> str:
    """Text that cannot move the cursor, cut."""
    safe = repr(text)[1:-1]
    return safe if len(safe) <= _WIDTH else safe[: _WIDTH - 1] + "…"


def _sha256(prompts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()


def _rounded(scores: np.ndarray) -> list[float]:
    return [float(f"{score:.7g}") for score in scores]

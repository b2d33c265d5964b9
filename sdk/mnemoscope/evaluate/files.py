"""An evaluation as files: report.json, report.md, report.html."""

from __future__ import annotations

import re
from pathlib import Path

from ..outputs import write_files
from ..prompts.printable import json_text
from ..templates import render
from .pictures import histograms, roc_curves
from .report import Evaluation, Grid

__all__ = ["to_html", "to_markdown", "write"]

_TITLE = "How well memorised prompts are told from others"


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write all three.

    Returns:
        The files.

    Raises:
        InputError: one cannot be written.
        BackendUnavailable: matplotlib is not installed.
    """
    texts = {
        "report.json": json_text(evaluation.as_json(), indent=1),
        "report.md": to_markdown(evaluation),
        "report.html": to_html(evaluation),
    }
    contents = {
        name: (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")
        for name, text in texts.items()
    }
    return write_files(folder, contents)


def to_markdown(evaluation: Evaluation) -> str:
    """As Markdown."""
    parts = [f"# {_TITLE}"]
    if evaluation.notes:
        parts.append("\n".join(f"- {_md(note)}" for note in evaluation.notes))
    for grid in _all(evaluation):
        lines = [grid.header, ("---",) * len(grid.header), *grid.rows]
        rows = [
            f"| {' | '.join(cell if i == 1 else _md(cell) for cell in line)} |"
            for i, line in enumerate(lines)
        ]
        parts += [f"## {_md(grid.title)}", "\n".join(rows)]
    return "\n\n".join(parts)


def to_html(evaluation: Evaluation) -> str:
    """As one HTML page that loads nothing."""
    return render(
        "evaluation.html",
        heading=_TITLE,
        notes=evaluation.notes,
        grids=_all(evaluation),
        pictures={
            "ROC curves": roc_curves(evaluation),
            "Histograms of scores": histograms(evaluation),
        },
    )


def _all(evaluation: Evaluation) -> list[Grid]:
    facts = {**evaluation.subject, **evaluation.environment}
    measured = Grid("Measured with", ("what", "which"), tuple(facts.items()))
    return [*evaluation.grids(), evaluation.highest(), measured]


def _md(text: str) -> str:
    """Text that is neither markup nor the end of a table's cell."""
    marks = re.sub(r"([\\`*_|]|\](?=\())", r"\\\1", text)
    return marks.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

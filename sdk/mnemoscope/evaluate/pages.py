"""An evaluation as files: report.json, report.md, report.html."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

from mnemoscope_runtime.errors import InputError

from .pictures import histograms, roc_curves
from .report import Evaluation, Grid

__all__ = ["to_html", "to_markdown", "write"]

_TITLE = "How well memorised prompts are told from others"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 2rem }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #888 } td { border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere } img { max-width: 100% }
"""


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write all three.

    Returns:
        The files.

    Raises:
        InputError: one cannot be written.
        BackendUnavailable: matplotlib is not installed.
    """
    texts = {
        "report.json": json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False),
        "report.md": to_markdown(evaluation),
        "report.html": to_html(evaluation),
    }
    for name, text in texts.items():
        try:
            (folder / name).write_text(text.rstrip("\n") + "\n", "utf-8", "backslashreplace")
        except OSError as error:
            raise InputError(
                f"{folder / name} cannot be written: {error.strerror or error}. Choose another "
                "--output."
            ) from None
    return [folder / name for name in texts]


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
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in evaluation.notes)
    pictures = "".join(
        f'<p><img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
        for alt, png in (
            ("ROC curves", roc_curves(evaluation)),
            ("Histograms of scores", histograms(evaluation)),
        )
    )
    first, *rest = map(_html_table, _all(evaluation))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_TITLE}</title>'
        f"<style>{_STYLE}</style><h1>{_TITLE}</h1><ul>{notes}</ul>{first}{pictures}"
        f"{''.join(rest)}</html>"
    )


def _all(evaluation: Evaluation) -> list[Grid]:
    facts = {**evaluation.subject, **evaluation.environment}
    measured = Grid("Measured with", ("what", "which"), tuple(facts.items()))
    return [*evaluation.grids(), evaluation.highest(), measured]


def _html_table(grid: Grid) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in grid.rows)
    return f"<h2>{html.escape(grid.title)}</h2><table>{row(grid.header, 'th')}{body}</table>"


def _md(text: str) -> str:
    """Text that is neither markup nor the end of a table's cell."""
    marks = re.sub(r"([\\`*_|]|\](?=\())", r"\\\1", text)
    return marks.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

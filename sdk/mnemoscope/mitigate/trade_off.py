"""A comparison as files: table (Markdown), figures (JSON), plot (PNG), contact sheet (HTML)."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from mnemoscope_runtime.errors import BackendUnavailable, InputError

from ..text import printable
from .compare import Comparison, Row
from .results import NONE

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TradeOff"]

_SHOWN, _SIDE = 24, 96  # rows of the contact sheet, pixels of a picture
# whatever slips through the escaping finds a page that loads and runs nothing
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Mitigation, side by side</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .5rem; text-align: left; vertical-align: top;
 border-bottom: 1px solid #ccc }
td { font-variant-numeric: tabular-nums }
.sheet td { font-size: 12px; border: 0 } .sheet td:first-child { max-width: 14rem }
.copied img { outline: 3px solid #c00 } img { image-rendering: pixelated; display: block }
</style>
</head>
<body>
<h1>Mitigation, side by side</h1>
$tables
<h2>Pictures</h2>
<p>Seed $seed of the first $shown prompts. A red frame: a copy of $reference. Below each picture its
cosine with that, and its alignment with the prompt.</p>
<table class="sheet">$sheet</table>
<p><img alt="Copies against alignment" src="data:image/png;base64,$plot"
 style="image-rendering: auto"></p>
</body>
</html>
""")


@dataclass(frozen=True, eq=False)
class TradeOff:
    """What is written.

    Attributes:
        memorized: The comparison on memorised prompts.
        references: The picture that each must not draw, to be shown; None if that is what it
            draws unmitigated. # [P]
        benign: The same strategies on benign prompts: what mitigation would do to them.
        facts: What was measured, and how.
    """

    memorized: Comparison
    references: Sequence[Image] | None
    benign: Comparison | None
    facts: dict[str, Any]

    def markdown(self) -> str:
        """The tables."""
        parts = [_markdown(_HEADER, map(_cells, self.memorized.rows))]
        if self.benign is not None:
            parts.append("What the same does to benign prompts:")
            parts.append(_markdown(_HARM, self._harm()))
        return "\n\n".join(parts) + "\n"

    def _harm(self) -> list[tuple[str, ...]]:
        if self.benign is None:
            return []
        [plain] = [row for row in self.benign.rows if row.strategy == NONE]
        return [
            (
                row.strategy,
                str(row.alignment),
                f"{row.alignment.value - plain.alignment.value:+.3f}",
                str(row.unchanged),
            )
            for row in self.benign.rows
        ]

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        found = {"facts": self.facts, "memorized": self.memorized.as_json()}
        return found if self.benign is None else {**found, "benign": self.benign.as_json()}

    def plot(self) -> bytes:
        """Copies against alignment, as PNG.

        Raises:
            BackendUnavailable: matplotlib is not installed.
        """
        try:
            from matplotlib import colormaps
            from matplotlib.figure import Figure
        except ImportError as error:
            raise BackendUnavailable(
                f"Plots need matplotlib: {error}. Install it with `pip install 'mnemoscope[plot]'`."
            ) from None
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes: Any = figure.subplots()
        axes.set_prop_cycle(color=[colormaps["tab20"](i) for i in range(20)])
        for row, marker in zip(self.memorized.rows, itertools.cycle("osD^vP*Xp<>d"), strict=False):
            x, y = row.similarity, row.alignment
            axes.errorbar(
                x.value,
                y.value,
                xerr=[[x.value - x.low], [x.high - x.value]],
                yerr=[[y.value - y.low], [y.high - y.value]],
                fmt=marker,
                capsize=2,
                label=f"{row.strategy}: {row.copied.value:.1%} copies",
            )
        if self.benign is not None:
            [plain] = [row for row in self.benign.rows if row.strategy == NONE]
            axes.axhline(
                plain.alignment.value, color="grey", linestyle=":", label="benign prompts, as drawn"
            )
        axes.set(xlabel="copy similarity", ylabel="alignment with the prompt")
        figure.legend(loc="outside right center")
        return _png(figure.savefig, dpi=110)

    def page(self) -> str:
        """Tables, contact sheet and plot as one HTML page that loads nothing."""
        tables = _html(_HEADER, map(_cells, self.memorized.rows))
        if self.benign is not None:
            tables += "<h2>Benign prompts</h2>" + _html(_HARM, self._harm())
        shown = min(_SHOWN, len(self.memorized.prompts))
        return _PAGE.substitute(
            tables=tables,
            seed=self.memorized.seeds[0],
            shown=shown,
            reference="the training picture" if self.references else "the unmitigated picture",
            sheet=self._sheet(shown),
            plot=base64.b64encode(self.plot()).decode(),
        )

    def _sheet(self, shown: int) -> str:
        drawings = self.memorized.drawings
        names = [*(["reference"] if self.references else []), *(d.strategy for d in drawings)]
        rows = [
            "<tr><th>prompt</th>" + "".join(f"<th>{html.escape(n)}</th>" for n in names) + "</tr>"
        ]
        for p in range(shown):
            cells = [f"<td>{html.escape(printable(self.memorized.prompts[p], 200))}</td>"]
            if self.references:
                cells.append(f"<td>{_thumbnail(self.references[p])}</td>")
            for each in drawings:
                like, picture = each.likeness[p, 0], each.pictures[p][0]
                copied = ' class="copied"' if like > self.memorized.copied_above else ""
                by = f"<br>{picture.strategy}" if picture.strategy != each.strategy else ""
                figures = f"{like:.2f}, {picture.judged.alignment:.2f}{by}"
                cells.append(f"<td{copied}>{_thumbnail(picture.image)}{figures}</td>")
            rows.append(f"<tr>{''.join(cells)}</tr>")
        return "\n".join(rows)

    def write(self, folder: Path) -> list[Path]:
        """Write mitigation.md, .json, .png and .html.

        Raises:
            InputError: one cannot be written.
            BackendUnavailable: matplotlib is not installed.
        """
        contents = {
            "mitigation.md": self.markdown().encode(),
            "mitigation.json": json.dumps(self.as_json(), indent=1, ensure_ascii=False).encode(
                "utf-8", "backslashreplace"
            ),
            "mitigation.png": self.plot(),
            "mitigation.html": self.page().encode("utf-8", "backslashreplace"),
        }
        for name, content in contents.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            except OSError as error:
                raise InputError(
                    f"{folder / name} cannot be written: {error.strerror or error}. Choose another "
                    "--output."
                ) from None
        return [folder / name for name in contents]


_HEADER = (
    *("strategy", "copies [95 %]", "prompts reproduced [95 %]", "copy similarity [95 %]"),
    *("alignment [95 %]", "score", "passes to plan", "s/picture"),
)
_HARM = ("strategy", "alignment [95 %]", "change", "same picture as before [95 %]")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.strategy,
        *map(str, (row.copied, row.reproduced, row.similarity, row.alignment)),
        f"{row.score:.2f}",
        f"{row.passes:.0f}",
        f"{row.seconds:.2f}",
    )


def _markdown(header: Sequence[str], rows: Any) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(header: Sequence[str], rows: Any) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _thumbnail(image: Image) -> str:
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((_SIDE, _SIDE), Resampling.BILINEAR)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(_png(small.save)).decode()}">'


def _png(save: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, format="png", **options)
    return buffer.getvalue()

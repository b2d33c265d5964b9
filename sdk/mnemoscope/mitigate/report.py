"""A comparison as files: table (Markdown), figures (JSON), plot (PNG), contact sheet (HTML)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outputs import write_files
from ..plotting import new_figure, png
from ..prompts.printable import json_text
from ..templates import render
from .compare import Comparison, Row
from .results import NONE

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ComparisonReport"]

_SHOWN, _SIDE = 24, 96  # rows of the contact sheet, pixels of a picture


@dataclass(frozen=True, eq=False)
class ComparisonReport:
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
        figure = new_figure(9, 5)
        from matplotlib import colormaps

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
        return png(figure)

    def page(self) -> str:
        """Tables, contact sheet and plot as one HTML page that loads nothing."""
        names = [each.strategy for each in self.memorized.drawings]
        shown = min(_SHOWN, len(self.memorized.prompts))
        return render(
            "mitigation.html",
            header=_HEADER,
            rows=[_cells(row) for row in self.memorized.rows],
            harm_header=_HARM,
            harm=self._harm(),
            seed=self.memorized.seeds[0],
            reference="the training picture" if self.references else "the unmitigated picture",
            columns=["prompt", *(["reference"] if self.references else []), *names],
            sheet=[(self.memorized.prompts[p], self._cells(p)) for p in range(shown)],
            plot=self.plot(),
        )

    def _cells(self, p: int) -> list[dict[str, Any]]:
        """A prompt's pictures on the contact sheet."""
        found: list[dict[str, Any]] = []
        if self.references:
            reference = _thumbnail(self.references[p])
            found.append({"png": reference, "copied": False, "figures": "", "by": ""})
        for each in self.memorized.drawings:
            like, picture = each.likeness[p, 0], each.pictures[p][0]
            found.append(
                {
                    "png": _thumbnail(picture.image),
                    "copied": like > self.memorized.copied_above,
                    "figures": f"{like:.2f}, {picture.judged.alignment:.2f}",
                    "by": picture.strategy if picture.strategy != each.strategy else "",
                }
            )
        return found

    def write(self, folder: Path) -> list[Path]:
        """Write mitigation.md, .json, .png and .html.

        Raises:
            InputError: one cannot be written.
            BackendUnavailable: matplotlib is not installed.
        """
        contents = {
            "mitigation.md": self.markdown().encode(),
            "mitigation.json": json_text(self.as_json(), indent=1).encode(),
            "mitigation.png": self.plot(),
            "mitigation.html": self.page().encode("utf-8", "backslashreplace"),
        }
        return write_files(folder, contents)


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


def _thumbnail(image: Image) -> bytes:
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((_SIDE, _SIDE), Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, format="png")
    return buffer.getvalue()

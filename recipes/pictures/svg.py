"""A drawing of boxes, arrows, bars and words, as SVG that refers to nothing outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

BLUE, RED, GREEN, GREY, PALE, INK = (
    "#3f51b5",
    "#c62828",
    "#2e7d32",
    "#9e9e9e",
    "#eceff7",
    "#263238",
)
_LINE = 16  # pixels from one line of text to the next


class Drawing:
    """Shapes on a white sheet, in pixels from its upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker>'
            "</defs>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]

    def text(
        self, x: float, y: float, words: str, *, colour: str = INK, anchor: str = "middle"
    ) -> None:
        """Lines of text, centred around y."""
        lines = words.split("\n")
        top = y - _LINE * (len(lines) - 1) / 2 + 4
        for i, line in enumerate(lines):
            self.parts.append(
                f'<text x="{x:g}" y="{top + _LINE * i:g}" fill="{colour}" '
                f'text-anchor="{anchor}">{escape(line)}</text>'
            )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" '
            f'fill="{colour}"/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, words: str, colour: str = PALE
    ) -> None:
        """A box with words in it."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{colour}" stroke="{INK}"/>'
        )
        self.text(x + width / 2, y + height / 2, words)

    def line(self, *points: tuple[float, float], colour: str = INK, dashed: bool = False) -> None:
        """A line through points."""
        self._path(points, colour, 'stroke-dasharray="5 4"' if dashed else "")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line that ends in a tip."""
        self._path(points, INK, 'marker-end="url(#tip)"')

    def _path(self, points: Sequence[tuple[float, float]], colour: str, more: str) -> None:
        way = "L".join(f"{x:.4g} {y:.4g}" for x, y in points)
        self.parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" {more}/>')

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])

"""Figures where the docs have them: two tables, the picture and the raw report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .figures import BARE, bar_lines, of_turns, percentile, picture, ratio, refused

__all__ = ["publish", "summary"]

_BEGIN, _END = "<!-- benchmarks.serving -->", "<!-- end of benchmarks.serving -->"
_COLUMNS = (
    *("", "p50 at 25 %", "at 50 %", "p99 at 50 %", "p99 at 150 %"),
    *("CPU ms a request at 50 %", "prompts/s, {clients} clients"),
)


def summary(report: Mapping[str, Any]) -> list[str]:
    """A row for each arm, as Markdown; ratios are to the bare engine, which has milliseconds."""
    columns = [each.format(clients=report["clients"]) for each in _COLUMNS]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    for arm, rates in report["throughput"].items():
        over = of_turns(report, arm, 1.5)
        lost = f", {refused(over):.1%} refused" if refused(over) else ""
        cpu = np.median([turn["cpu"] for turn in of_turns(report, arm, 0.5)])
        row = (
            arm,
            *(_latency(report, arm, load, q) for load, q in ((0.25, 50), (0.5, 50), (0.5, 99))),
            f"{1e3 * percentile(over, 99):,.0f} ms{lost}",
            f"{1e3 * cpu:.1f}",
            f"{np.median(rates):.0f}",
        )
        lines.append(f"| {' | '.join(row)} |")
    return lines


def publish(report: Mapping[str, Any], root: Path) -> None:
    """Write a run into a clone.

    Args:
        report: Of all loads.
        root: Of the clone.

    Raises:
        ValueError: docs/serving.md has no place for it.
    """
    page = root / "docs" / "serving.md"
    before, begin, rest = page.read_text("utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page} has no {_BEGIN} with an {_END} behind it. Put them back.")
    told = (
        f"{report['machine']}; the bare engine screens {report['capacity']:.0f} prompts a second. "
        f"Medians of {report['rounds']} rounds of {report['seconds']:g} s."
    )
    lines = (begin, "", told, "", *summary(report), "", *bar_lines(report), "", end)
    page.write_text(before + "\n".join(lines) + after, "utf-8")
    picture(report, root / "docs" / "images" / "serving.png")
    raw = root / "benchmarks" / "results" / "embedded-serving.json"
    raw.write_text(json.dumps(_rounded(report)) + "\n", "utf-8")


def _rounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """With latencies to ten microseconds, which is far below what one differs from the next by."""
    rows = [
        {**row, "seconds": [round(each, 5) for each in row["seconds"]]} for row in report["rows"]
    ]
    return {**report, "rows": rows}


def _latency(report: Mapping[str, Any], arm: str, load: float, q: float) -> str:
    if arm == BARE:
        return f"{1e3 * percentile(of_turns(report, arm, load), q):.1f} ms"
    return f"x {ratio(report, arm, load, q):.2f}"

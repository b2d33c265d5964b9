"""What a run came to: a table, a picture, and which of the bars it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mnemoscope.prompts.printable import counted

__all__ = [
    *("BARE", "bar_lines", "bars", "of_turns", "page", "percentile", "picture", "ratio"),
    *("refused", "table"),
]

BARE, NAIVE = "bare engine", "naive endpoint"


@dataclass(frozen=True)
class Bar:
    """A goal, and what was found.

    Attributes:
        name: Of what.
        sign: "<=" or ">=".
        goal: That it has to keep.
        found: In the run.
    """

    name: str
    sign: str
    goal: float
    found: float

    @property
    def is_met(self) -> bool:
        """NaN is not."""
        return self.found <= self.goal if self.sign == "<=" else self.found >= self.goal


def of_turns(report: Mapping[str, Any], arm: str, load: float) -> list[Mapping[str, Any]]:
    """Turns of an arm at a load."""
    return [row for row in report["rows"] if (row["arm"], row["load"]) == (arm, load)]


def percentile(turns: Sequence[Mapping[str, Any]], q: float) -> float:
    """Of latencies in seconds, the median over turns; NaN where nothing was answered."""
    return float(np.median([np.percentile(turn["seconds"] or [np.nan], q) for turn in turns]))


def ratio(report: Mapping[str, Any], arm: str, load: float, q: float) -> float:
    """Of a percentile to the bare engine's of the same round, the median over rounds."""
    pairs = zip(of_turns(report, arm, load), of_turns(report, BARE, load), strict=True)
    found = [percentile([turn], q) / percentile([bare], q) for turn, bare in pairs]
    return float(np.median(found))


def refused(turns: Sequence[Mapping[str, Any]]) -> float:
    """Share of arrivals that were not taken on, or failed."""
    lost = sum(turn["refused"] + turn["failed"] for turn in turns)
    return lost / (lost + sum(len(turn["seconds"]) for turn in turns))


def cells(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table."""
    found = []
    for load in dict.fromkeys(row["load"] for row in report["rows"]):
        for arm in dict.fromkeys(row["arm"] for row in report["rows"]):
            turns = of_turns(report, arm, load)
            found.append(
                (
                    f"{load:.0%}",
                    arm,
                    f"{1e3 * percentile(turns, 50):.1f}",
                    f"{ratio(report, arm, load, 50):.2f}",
                    f"{1e3 * percentile(turns, 99):.1f}",
                    f"{ratio(report, arm, load, 99):.2f}",
                    f"{1e3 * np.median([turn['cpu'] for turn in turns]):.2f}",
                    f"{refused(turns):.1%}",
                )
            )
    return found


HEAD = ("load", "arm", "p50 ms", "x bare", "p99 ms", "x bare", "CPU ms a request", "refused")


def table(report: Mapping[str, Any]) -> Table:
    """For people at a terminal."""
    shown = Table(title=f"{report['capacity']:.0f} prompts a second, one after the other")
    for title in HEAD:
        shown.add_column(title, justify="left" if title == "arm" else "right")
    for row in cells(report):
        shown.add_row(*row)
    return shown


def page(report: Mapping[str, Any]) -> str:
    """The same as Markdown, with what the clients of a closed loop got, and the bars."""
    lines = [
        "# Serving",
        "",
        f"{report['machine']}; the bare engine screens {report['capacity']:.0f} prompts a second, "
        f"one after the other. {report['rounds']} rounds of {report['seconds']:g} s. What is ours "
        f"has {counted(report['lanes'], 'lane')}, a queue of {report['queue']}, waits for "
        f"{1e3 * report['wait']:g} ms, and has a patience of {1e3 * report['patience']:g} ms.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|---|" + "---:|" * (len(HEAD) - 2),
        *(f"| {' | '.join(row)} |" for row in cells(report)),
        "",
        f"| {report['clients']} clients, each of which asks again once answered | prompts/s |",
        "|---|---:|",
        *(f"| {arm} | {np.median(each):.0f} |" for arm, each in report["throughput"].items()),
        "",
        *bar_lines(report),
    ]
    return "\n".join(lines) + "\n"


def bar_lines(report: Mapping[str, Any]) -> list[str]:
    """What was promised beside what was found, as Markdown."""
    return [
        "| bar | goal | found |",
        "|---|---:|---:|",
        *(
            f"| {bar.name} | {bar.sign} {bar.goal:g} | {bar.found:.2f}"
            f"{'' if bar.is_met else ', missed'} |"
            for bar in bars(report)
        ),
    ]


def bars(report: Mapping[str, Any]) -> list[Bar]:
    """What was promised of the service, as far as it was measured."""
    loads, throughput = {row["load"] for row in report["rows"]}, report["throughput"]
    found = []
    for arm in (name for name in throughput if name.startswith("serve")):
        if 0.5 in loads:
            found += [
                Bar(f"{arm}: p50 at 50 %, x bare", "<=", 1.3, ratio(report, arm, 0.5, 50)),
                Bar(f"{arm}: p99 at 50 %, x bare", "<=", 1.5, ratio(report, arm, 0.5, 99)),
            ]
        if {0.5, 1.5} <= loads:
            worse = percentile(of_turns(report, arm, 1.5), 99)
            worse /= percentile(of_turns(report, arm, 0.5), 99)
            found.append(Bar(f"{arm}: p99 at 150 %, x that at 50 %", "<=", 3, worse))
        if NAIVE in throughput:
            pairs = zip(throughput[arm], throughput[NAIVE], strict=True)
            more = float(np.median([ours / naive for ours, naive in pairs]))
            found.append(Bar(f"{arm}: prompts/s of clients in turns, x naive", ">=", 1.3, more))
    return found


def picture(report: Mapping[str, Any], file: Path) -> None:
    """Latency over load, one line an arm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loads = sorted({row["load"] for row in report["rows"]})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for panel, q in zip(axes, (50, 99), strict=True):
        for arm in dict.fromkeys(row["arm"] for row in report["rows"]):
            values = [1e3 * percentile(of_turns(report, arm, load), q) for load in loads]
            panel.plot([100 * load for load in loads], values, marker="o", label=arm)
        panel.set(yscale="log", xlabel="load, % of the bare engine", ylabel=f"p{q}, ms")
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)

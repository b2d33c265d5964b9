"""What the page shows, as HTML that runs nothing: every text in it is escaped by its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..calibration import Calibration
from ..calibration.moving import Moved
from ..explain import Edit, Explanation
from ..explain.pictures import heated, weighed
from ..prompts.printable import counted, percent
from ..screening.detection import Detection
from ..templates import render
from .histogram import WIDTH, bars, gauge, span
from .listing import Audited, Row
from .runs import Progress
from .wording import MEANING, cost, verdict

__all__ = [
    "audit_card",
    "calibration_card",
    "cost_card",
    "edit_card",
    "note_card",
    "progress_card",
    "rows_card",
    "verdict_card",
    "words_card",
]

_LONG = 600  # characters of a prompt that a card shows
_HOT = "255,112,67"  # dark text on it has a contrast of more than six
_WORDS = 6  # that a card names
_ROWS = 50  # that a card shows


@dataclass(frozen=True)
class _Line:
    """An upright line of a histogram."""

    name: str
    x: float


def verdict_card(found: Detection, benign: Sequence[float], missing: str | None = None) -> str:
    """A verdict in words, and where the score lies.

    Args:
        found: What was measured.
        benign: Scores that it is compared with, ascending; none without a calibration.
        missing: Why there is no verdict, if it is for want of a calibration.
    """
    steps, noises = counted(found.steps, "step"), counted(found.noises, "noise")
    return render(
        "ui/verdict.html",
        verdict=verdict(found, len(benign)),
        gauge=gauge(found, benign),
        score=None if found.empty else found.score,
        meaning=MEANING,
        notes=[*(() if found.empty else found.notes), *([missing] if missing else [])],
        how=f"Measured by {found.detector} at {steps} on {noises}, with {found.backend}, in "
        f"{1000 * found.seconds:.0f} ms.",
    )


def words_card(explanation: Explanation) -> str:
    """The prompt with its words as hot as they matter, and those that matter most."""
    parts = heated(explanation)
    pieces = [(text, f"rgba({_HOT},{heat:.2f})" if heat else "") for text, heat in parts]
    ranked = [(w.text, w.share, w.heat) for w in weighed(explanation) if w.score > 0]
    how = {
        "occlusion": "how far the score falls when the word is left out",
        "gradient": "how strongly the score reacts to the word",
        "gradient-output": "how strongly the score reacts to the encoded word",
    }[explanation.method]
    return render(
        "ui/words.html",
        pieces=pieces,
        unread=explanation.unread,
        words=ranked[:_WORDS],
        meaning=f"The stronger the colour and the longer the bar, the more a word matters: {how}.",
        longest=_LONG,
    )


def edit_card(number: int, edit: Edit) -> str:
    """A change that brings the prompt under the threshold."""
    return render(
        "ui/edit.html",
        number=number,
        changes=", ".join(map(str, edit.changes)),
        prompt=edit.prompt,
        score=edit.score,
        p_value=edit.p_value,
        kept=edit.kept,
        longest=_LONG,
    )


def note_card(*sentences: str, title: str = "", wrong: bool = False) -> str:
    """Sentences.

    Args:
        sentences: What to know.
        title: What they are about.
        wrong: Whether something could not be done.
    """
    kind = "wrong" if wrong else "note"
    return render("ui/note.html", kind=kind, title=title, sentences=sentences)


def progress_card(progress: Progress) -> str:
    """How far something is."""
    return render(
        "ui/progress.html", doing=progress.doing, done=progress.done, total=progress.total
    )


def audit_card(found: Audited) -> str:
    """What an audit found, with its files."""
    audit = found.audit
    unscreened = sum(audit.errors.values())
    return render(
        "ui/audit.html",
        title=f"{audit.flagged:,} of {audit.distinct:,} distinct prompts flagged",
        numbers=[
            (f"{audit.prompts:,}", "prompts in the file"),
            (f"{audit.flagged:,}", "distinct prompts flagged"),
            (f"{audit.groups:,}", "groups of near duplicates among them"),
            (f"{unscreened:,}", "rows not screened"),
            (f"{audit.truncated:,}", "longer than the model reads"),
        ],
        notes=found.notes,
        name=audit.file.stem[:60],
        report=found.report,
        results=found.results,
        meaning=f"Of the prompts flagged, at most {percent(audit.fdr)} are benign on average, if "
        "the benign ones are like those of the calibration. A flagged prompt is a suspicion: draw "
        "it and look.",
    )


def rows_card(found: Sequence[Row], title: str) -> str:
    """Rows of an audit."""
    return render(
        "ui/rows.html",
        title=title,
        rows=found[:_ROWS],
        left=max(0, len(found) - _ROWS),
        longest=_LONG,
    )


def calibration_card(calibration: Calibration, threshold: float | None = None) -> str:
    """Calibrated scores as a histogram.

    Args:
        calibration: Benign scores, and memorised ones if it has some.
        threshold: Where the threshold is moved to; None for where it is.
    """
    low, high = span(calibration)
    lists = (calibration.scores, calibration.positives)
    most = max(float(bars(each, low, high, 1.0)[1].max()) for each in lists)

    def place(score: float) -> float:
        return WIDTH * (score - low) / (high - low)

    lines = [_Line("threshold", place(calibration.threshold))]
    if threshold is not None and threshold != calibration.threshold:
        lines.append(_Line("moved", place(threshold)))
    return render(
        "ui/histogram.html",
        benign=bars(calibration.scores, low, high, most)[0],
        memorised=bars(calibration.positives, low, high, most)[0],
        lines=lines,
        low=low,
        high=high,
        counts=[
            counted(len(each), f"{kind} prompt")
            for kind, each in zip(("benign", "memorised"), lists, strict=True)
        ],
        label=f"Histogram of {len(calibration.scores):,} benign and "
        f"{counted(len(calibration.positives), 'memorised score')} with the threshold at "
        f"{calibration.threshold:.4g}",
    )


def cost_card(moved: Moved, confidence: float) -> str:
    """What a threshold costs."""
    return note_card(*cost(moved, confidence), title="What this threshold costs")

"""Explanations to look at: a line of heat and a table in the terminal, one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnemoscope_runtime.wording import counted

from ..prompts.printable import printable
from ..templates import render
from .edits import Edit
from .explanation import Explanation, Word
from .trigger_words import Summary
from .words import Span

__all__ = [
    "Weighed",
    "coloured",
    "heated",
    "show",
    "show_flagged",
    "show_summary",
    "to_html",
    "weighed",
]

_TOP = 20  # words of a summary that are shown, and flagged prompts
_MATTER = 3  # words of a flagged prompt that are named
_RED = (214, 40, 40)
_LONG = 4000  # characters of a prompt that are shown


def show(console: Console, explanation: Explanation) -> None:
    """The prompt with what it holds as red as it matters, a table of that, and the edits."""
    console.print(_heat_line(explanation), soft_wrap=True)
    console.print(_verdict(explanation), soft_wrap=True, highlight=False, markup=False)
    table = Table("word", "score", "share", "", "kind", "tokens", box=None, pad_edge=False)
    for each in weighed(explanation):
        table.add_row(
            Text(printable(each.text, 40)),
            f"{each.score:.4f}",
            f"{each.share:.0%}",
            "█" * round(20 * each.share),
            each.kind,
            Text(printable(each.where, 40)),
        )
    for name, score in _added(explanation):
        table.add_row(Text(name, style="dim"), score, "", "", "added", "")
    console.print(table)
    for edit in explanation.edits:
        console.print(Text(_edit_line(edit)), soft_wrap=True)


def show_summary(console: Console, summary: Summary) -> None:
    """Which words trigger most, and of which kinds they are."""
    words = Table("word", "kind", "prompts", "top of", "share", "effect", box=None, pad_edge=False)
    for each in summary.triggers[:_TOP]:
        words.add_row(
            *(Text(printable(each.word, 40)), each.kind, str(each.prompts), str(each.top)),
            *(f"{each.share:.0%}", f"{each.effect:.4f}"),
        )
    kinds = Table("kind", "words", "top of", "share", "effect", box=None, pad_edge=False)
    for row in summary.kinds:
        kinds.add_row(
            row.kind, str(row.words), str(row.top), f"{row.share:.0%}", f"{row.effect:.4f}"
        )
    console.print(_whose(summary))
    console.print(words)
    console.print()
    console.print(kinds)


def show_flagged(console: Console, explanations: Sequence[Explanation]) -> None:
    """Which prompts are flagged or edited, the highest score first, why, and their first edit."""
    listed = [each for each in explanations if each.memorized or each.edits]
    for each in sorted(listed, key=lambda each: -each.score)[:_TOP]:
        top = [row for row in weighed(each)[:_MATTER] if row.score > 0]
        words = ", ".join(f"{printable(row.text, 40)} {row.score:.4f}" for row in top)
        console.print()
        console.print(Text(f"{_score(each)}: {printable(each.prompt, _LONG)}"), soft_wrap=True)
        console.print(Text(f"  words: {words or 'none matters by itself'}"), soft_wrap=True)
        for edit in each.edits[:1]:
            console.print(Text(f"  edit: {_edit_line(edit)}"), soft_wrap=True)
    if len(listed) > _TOP:
        more = f"... and {len(listed) - _TOP} more; --format json or html writes all."
        console.print(f"\n{more}", soft_wrap=True, highlight=False)


def to_html(explanations: Sequence[Explanation], summary: Summary | None = None) -> str:
    """One page that needs nothing else and runs nothing."""
    return render(
        "explanation.html",
        summary=None if summary is None else _tables(summary),
        explanations=map(_entry, explanations),
        longest=_LONG,
    )


def coloured(explanation: Explanation) -> list[tuple[str, str]]:
    """The prompt in pieces: what matters with a colour of CSS, the rest with nothing."""
    red = ",".join(map(str, _RED))
    return [(text, f"rgba({red},{heat:.2f})" if heat else "") for text, heat in heated(explanation)]


def _entry(explanation: Explanation) -> dict[str, Any]:
    """What the page shows of a prompt."""
    words = [
        (each.text, f"{each.score:.4f}", f"{each.share:.0%}", each.kind, each.where)
        for each in weighed(explanation)
    ]
    added = [(name, score, "", "added", "") for name, score in _added(explanation)]
    return {
        "pieces": coloured(explanation),
        "unread": explanation.unread,
        "verdict": _verdict(explanation),
        "words": words + added,
        "edits": [
            (
                ", ".join(map(str, edit.changes)),
                f"{edit.score:.4f}",
                "-" if edit.p_value is None else f"{edit.p_value:.4f}",
                f"{edit.kept:.0%}",
                edit.prompt,
            )
            for edit in explanation.edits
        ],
    }


def _heat_line(explanation: Explanation) -> Text:
    line = Text()
    for text, heat in heated(explanation):
        style = "" if heat is None else f"on rgb({','.join(map(str, _mixed(heat)))})"
        line.append(printable(text), style=f"black {style}" if heat else "")
    if explanation.unread:
        line.append(f" {printable(explanation.unread, 200)}", style="dim strike")
    return line


@dataclass(frozen=True)
class Weighed:
    """A word, or a sign that belongs to none, as it is shown.

    Attributes:
        text: As the prompt has it.
        span: Its characters in the prompt.
        score: See `Word`.
        share: Of the sum of positive scores, in 0..1.
        heat: In 0..1, of the largest score; in a clean prompt of the threshold, if that is larger
            and in the same units.
        kind: Of the word; "punctuation" of a sign.
        where: A word as the model cuts it; of a sign the word that it stands after.
    """

    text: str
    span: Span
    score: float
    share: float
    heat: float
    kind: str
    where: str


def weighed(explanation: Explanation) -> list[Weighed]:
    """Words and signs, the one that matters most first."""
    words = [(w.span, w.score, w.kind, _tokens(explanation.prompt, w)) for w in explanation.words]
    signs = [
        (sign.span, sign.score, sign.kind, _after(explanation, sign.span))
        for sign in explanation.signs
        if sign.span is not None and sign.score is not None
    ]
    rows = [*words, *signs]
    largest = max(score for _, score, *_ in rows)
    if explanation.memorized is False and explanation.method == "occlusion":
        largest = max(largest, explanation.threshold or 0.0)
    return [
        Weighed(
            text=explanation.prompt[slice(*span)],
            span=span,
            score=score,
            share=explanation.share(score),
            heat=max(score, 0.0) / largest if largest > 0 else 0.0,
            kind=kind,
            where=where,
        )
        for span, score, kind, where in sorted(rows, key=lambda row: -row[1])
    ]


def heated(explanation: Explanation) -> Iterable[tuple[str, float | None]]:
    """The prompt in pieces: words and signs with their heat, what is between them without."""
    last = 0
    for each in sorted(weighed(explanation), key=lambda each: each.span):
        start, end = each.span
        yield explanation.prompt[last:start], None
        yield explanation.prompt[start:end], each.heat
        last = end
    if not explanation.unread:
        yield explanation.prompt[last:], None


def _verdict(explanation: Explanation) -> str:
    limit = "" if explanation.threshold is None else f", threshold {explanation.threshold:.4f}"
    read = "in part" if explanation.unread else "clean"  # never of what nobody looked at
    word = {None: "no verdict", True: "memorized", False: read}[explanation.memorized]
    return f"{word}: {_score(explanation)}{limit}; words by {explanation.method}"


def _score(explanation: Explanation) -> str:
    p = "" if explanation.p_value is None else f", p {explanation.p_value:.4f}"
    return f"score {explanation.score:.4f}{p}"


def _edit_line(edit: Edit) -> str:
    changes = ", ".join(map(str, edit.changes))
    p = "" if edit.p_value is None else f", p {edit.p_value:.4f}"
    return printable(f"{changes}: {edit.score:.4f}{p}, {edit.kept:.0%} kept: {edit.prompt}", _LONG)


def _mixed(heat: float) -> tuple[int, ...]:
    """White to red."""
    return tuple(round(255 + heat * (part - 255)) for part in _RED)


def _tokens(prompt: str, word: Word) -> str:
    """A word as the model cuts it, and of how many tokens the same characters are, if several."""
    spans = [each.span for each in word.tokens if each.span is not None]
    parts = [(prompt[start:end], len(list(same))) for (start, end), same in groupby(spans)]
    return " ".join(
        text if count == 1 else f"{text}\N{MULTIPLICATION SIGN}{count}" for text, count in parts
    )


def _after(explanation: Explanation, span: Span) -> str:
    """Which word a sign stands after, as a prompt may hold several such signs."""
    before = [word.word for word in explanation.words if word.span[1] <= span[0]]
    return f"after {before[-1]}" if before else ""


def _added(explanation: Explanation) -> list[tuple[str, str]]:
    """What was weighed of that which is added to every prompt, and its score."""
    return [
        (f"({each.kind})", f"{each.score:.4f}")
        for each in explanation.others
        if each.score is not None and each.kind != "punctuation"
    ]


def _tables(summary: Summary) -> dict[str, Any]:
    """What the page shows of all prompts together."""
    return {
        "whose": _whose(summary),
        "words": [
            (w.word, w.kind, w.prompts, w.top, f"{w.share:.0%}", f"{w.effect:.4f}")
            for w in summary.triggers[:_TOP]
        ],
        "kinds": [
            (k.kind, k.words, k.top, f"{k.share:.0%}", f"{k.effect:.4f}") for k in summary.kinds
        ],
    }


def _whose(summary: Summary) -> str:
    """Which prompts a summary's words are of."""
    if summary.flagged is None:
        return f"words of {counted(summary.prompts, 'prompt')}, without verdicts:"
    of = "words of those:" if summary.flagged else "so these are words of all:"
    return f"{summary.flagged} of {summary.prompts} flagged, {of}"

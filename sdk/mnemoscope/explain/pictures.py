"""Explanations to look at: a line of heat and a table in the terminal, one HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..text import printable
from .edits import Edit
from .explanation import Explanation, Token
from .summary import Summary

__all__ = ["show", "show_flagged", "show_summary", "to_html"]

_TOP = 20  # words of a summary that are shown, and flagged prompts
_MATTER = 3  # words of a flagged prompt that are named
_RED = (214, 40, 40)
_LONG = 4000  # characters of a prompt that are shown

# whatever slips through the escaping finds a page that loads and runs nothing
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Which words the score comes from</title>
<style>
body { font: 16px/1.6 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 2rem }
th, td { border-bottom: 1px solid #ccc; padding: .1rem .7rem; text-align: left;
 vertical-align: top; overflow-wrap: anywhere }
td.n { text-align: right; font-variant-numeric: tabular-nums }
p.prompt { font-size: 1.25rem; overflow-wrap: anywhere }
p.prompt span { border-radius: .2rem; padding: .1rem }
.unread { color: #888; text-decoration: line-through }
</style>
</head>
<body>
<h1>Which words the score comes from</h1>
"""


def show(console: Console, explanation: Explanation) -> None:
    """The prompt with its words as red as they matter, a table of them, and the edits."""
    console.print(_heat_line(explanation), soft_wrap=True)
    console.print(_verdict(explanation), soft_wrap=True, highlight=False, markup=False)
    table = Table("word", "score", "share", "", "kind", "tokens", box=None, pad_edge=False)
    shares = dict(zip((word.span for word in explanation.words), explanation.shares(), strict=True))
    for word in explanation.ranked:
        share = shares[word.span]
        tokens = " ".join(each.token.replace("</w>", "") for each in word.tokens)
        table.add_row(
            Text(printable(word.word, 40)),
            f"{word.score:.4f}",
            f"{share:.0%}",
            "█" * round(20 * share),
            word.kind,
            Text(printable(tokens, 40)),
        )
    for each in explanation.others:
        if each.score is not None:
            table.add_row(Text(_other(each), style="dim"), f"{each.score:.4f}", "", "", "", "")
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
        top = [word for word in each.ranked[:_MATTER] if word.score > 0]
        words = ", ".join(f"{printable(word.word, 40)} {word.score:.4f}" for word in top)
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
    parts = [_HEAD]
    if summary is not None:
        parts.append(_summary_tables(summary))
    for each in explanations:
        parts += [f"<p class=prompt>{_marked(each)}</p>", f"<p>{_safe(_verdict(each))}</p>"]
        rows = [(w.word, f"{w.score:.4f}", str(w.kind)) for w in each.ranked]
        rows += [(_other(o), f"{o.score:.4f}", "") for o in each.others if o.score is not None]
        parts.append(_table(("word", "score", "kind"), rows))
        if each.edits:
            edits = [
                (", ".join(map(str, e.changes)), f"{e.score:.4f}", f"{e.kept:.0%}", e.prompt)
                for e in each.edits
            ]
            parts.append(_table(("change", "score", "kept", "prompt"), edits))
    return "\n".join(parts) + "\n</body>\n</html>\n"


def _heat_line(explanation: Explanation) -> Text:
    line = Text()
    for text, heat in _pieces(explanation):
        style = "" if heat is None else f"on rgb({','.join(map(str, _mixed(heat)))})"
        line.append(printable(text), style=f"black {style}" if heat else "")
    if explanation.unread:
        line.append(f" {printable(explanation.unread, 200)}", style="dim strike")
    return line


def _marked(explanation: Explanation) -> str:
    parts = []
    for text, heat in _pieces(explanation):
        colour = f"rgba({_RED[0]},{_RED[1]},{_RED[2]},{heat or 0:.2f})"
        parts.append(
            f'<span style="background:{colour}">{_safe(text)}</span>' if heat else _safe(text)
        )
    if explanation.unread:
        parts.append(f' <span class="unread">{_safe(explanation.unread)}</span>')
    return "".join(parts)


def _pieces(explanation: Explanation) -> Iterable[tuple[str, float | None]]:
    """The prompt in pieces: words with their heat in 0..1, what is between them without.

    Heat is relative to the largest score; in a clean prompt to the threshold, if that is larger and
    in the same units.
    """
    largest = max(word.score for word in explanation.words)
    if explanation.memorized is False and explanation.method == "occlusion":
        largest = max(largest, explanation.threshold or 0.0)
    last = 0
    for word in explanation.words:
        start, end = word.span
        yield explanation.prompt[last:start], None
        yield explanation.prompt[start:end], max(word.score, 0.0) / largest if largest > 0 else 0.0
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


def _other(token: Token) -> str:
    return f"({printable(token.token.replace('</w>', ''), 40)})"


def _summary_tables(summary: Summary) -> str:
    words = [
        (w.word, w.kind, str(w.prompts), str(w.top), f"{w.share:.0%}", f"{w.effect:.4f}")
        for w in summary.triggers[:_TOP]
    ]
    kinds = [
        (k.kind, str(k.words), str(k.top), f"{k.share:.0%}", f"{k.effect:.4f}")
        for k in summary.kinds
    ]
    return "\n".join(
        (
            f"<h2>Words</h2>\n<p>{_safe(_whose(summary))}</p>",
            _table(("word", "kind", "prompts", "top of", "share", "effect"), words),
            "<h2>Kinds of words</h2>",
            _table(("kind", "words", "top of", "share", "effect"), kinds),
            "<h2>Prompts</h2>",
        )
    )


def _whose(summary: Summary) -> str:
    """Which prompts a summary's words are of."""
    if summary.flagged is None:
        return f"words of {summary.prompts} prompts, without verdicts:"
    of = "words of those:" if summary.flagged else "so these are words of all:"
    return f"{summary.flagged} of {summary.prompts} flagged, {of}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{_safe(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in rows]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _safe(text: str) -> str:
    return html.escape(printable(text, _LONG))

"""Prompts as words, and what of them the model reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import InputError
from mnemoscope_runtime.tokenizer import Piece, Tokenizer

__all__ = ["Group", "Reading", "Span", "edited", "read", "word_spans", "words_of"]

Span = tuple[int, int]  # characters, from and to
Group = tuple[int, ...]  # tokens, by their places among the ids

_EAST_ASIAN = "".join(  # full-width and half-width too; hyphens (Pd) and the apostrophe join
    character
    for start, end in ((0x3001, 0x3100), (0xFE10, 0xFE70), (0xFF01, 0xFF66))
    for character in map(chr, range(start, end))
    if unicodedata.category(character) in ("Po", "Ps", "Pe") and character != "\uff07"
)
_OTHER = "\u2026\u201c\u201d"  # ellipsis, double quotes
_OTHER += "\u060c\u061b\u061f\u0964\u0965"  # Arabic, Devanagari
_OTHER += "\u0f0d\u0f0e\u104a\u104b\u17d4\u17d5"  # Tibetan, Burmese, Khmer
_RUN = re.compile(rf"[^\s,;|{re.escape(_EAST_ASIAN + _OTHER)}]+")
_LOOSE = ",;:\u3001\uff0c\uff1b\uff1a"  # also as full-width
_STOPS = ".!?\u3002\uff01\uff1f"


def word_spans(text: str) -> list[Span]:
    """Where words are: runs without spaces, commas and the like, less punctuation at their ends.

    A script without spaces is one word up to its next punctuation. Hyphens, apostrophes and ASCII's
    full stops and colons within a run do not end a word.
    """
    found = []
    for run in _RUN.finditer(text):
        start, end = run.span()
        while start < end and _is_punctuation(text[start]):
            start += 1
        while start < end and _is_punctuation(text[end - 1]):
            end -= 1
        if start < end:
            found.append((start, end))
    return found


def words_of(text: str) -> list[str]:
    """The words themselves."""
    return [text[start:end] for start, end in word_spans(text)]


def edited(prompt: str, changes: Mapping[Span, str]) -> str:
    """A prompt with other words in some places, or none, and no loose comma where one was."""
    text, last, seam = "", 0, False
    for (start, end), new in sorted(changes.items()):
        gap = prompt[last:start]
        text, last, seam = (_joined(text, gap) if seam else text + gap) + new, end, not new
    rest = prompt[last:]
    if not seam:
        return text + rest
    return _joined(text, rest) if rest.strip() else text.rstrip(_LOOSE + " ")


def _joined(left: str, right: str) -> str:
    """Both sides of a word that is gone."""
    spaced = left[-1:].isspace() or right[:1].isspace()
    left, right = left.rstrip(), right.lstrip()
    if right[:1] and right[0] in _LOOSE and (not left or left[-1] in _LOOSE):
        right = right[1:].lstrip()
    if right[:1] and right[0] in _STOPS:
        left, right = left.rstrip(_LOOSE + " "), right if left else right.lstrip(_STOPS + " ")
    gap = " " if left and spaced and right[:1] not in (*_LOOSE, *_STOPS) else ""
    return left + gap + right


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model reads of a prompt.

    Attributes:
        prompt: The prompt.
        ids: # [1, L]
        pieces: What each id stands for. # [L]
        words: Spans of the words of which at least one token is read.
        groups: The tokens of each of them.
        loose: Tokens of the prompt that belong to no word, those together that stand together:
            punctuation, or nothing but spaces.
        start: The start token ...
        end: ... the first end token ...
        padding: ... and what comes after it.
        stop: Where in the prompt that which is read ends.
    """

    prompt: str
    ids: NDArray[np.int64]
    pieces: tuple[Piece, ...]
    words: tuple[Span, ...]
    groups: tuple[Group, ...]
    loose: tuple[Group, ...]
    start: Group
    end: Group
    padding: Group
    stop: int

    @property
    def read(self) -> str:
        """The part of the prompt that the model sees."""
        return self.prompt[: self.stop]

    @property
    def unread(self) -> str:
        """The truncated tail; empty if all is read."""
        return self.prompt[self.stop :].strip() if self.stop < len(self.prompt) else ""

    @property
    def texts(self) -> list[str]:
        """The words."""
        return [self.prompt[start:end] for start, end in self.words]

    def span(self, group: Group) -> Span | None:
        """The characters that some tokens stand for, less the spaces around them.

        Spaces alone keep theirs. None for added tokens.
        """
        spans = [span for k in group if (span := self.pieces[k].span) is not None]
        if not spans:
            return None
        start, end = min(a for a, _ in spans), max(b for _, b in spans)
        text = self.prompt[start:end]
        if not text.strip():
            return start, end
        return end - len(text.lstrip()), start + len(text.rstrip())

    def text(self, group: Group) -> str:
        """Those characters; empty for added tokens."""
        span = self.span(group)
        return "" if span is None else self.prompt[slice(*span)]


def read(tokenizer: Tokenizer, prompt: str) -> Reading:
    """Tokenize a prompt and find its words.

    Raises:
        InputError: it is not text, holds no word that the model reads, or goes on where the first
            text encoder has ended and another reads on.
    """
    tokens = tokenizer.encode([prompt])
    first = tokenizer.first
    if not tokens.truncated[0] and first.encode([prompt]).truncated[0]:
        raise InputError(
            f"{prompt[:60]!r} is longer than the {first.reads} tokens that {first.kind} reads of "
            f"it. Words are found by {first.kind}'s tokens, and those that T5 alone reads would be "
            "left out. Shorten the prompt."
        )
    pieces = tokenizer.pieces(prompt)
    spans = word_spans(prompt)
    owned: dict[Span, list[int]] = {span: [] for span in spans}
    loose: list[int] = []
    for k, piece in enumerate(pieces):
        if piece.span is not None:
            owner = next((span for span in spans if _overlap(span, piece.span)), None)
            (loose if owner is None else owned[owner]).append(k)
    words = {span: tuple(group) for span, group in owned.items() if group}
    if not words:
        raise InputError(
            f"{prompt[:60]!r} holds no words, so there are none to explain. Give a prompt with "
            "some."
        )
    added = [k for k, piece in enumerate(pieces) if piece.span is None]
    whole = not tokens.truncated[0]
    last = max(piece.span[1] for piece in pieces if piece.span is not None)
    last = max(last, *(end for _, end in words))  # a word of which a part is read is no tail
    return Reading(
        prompt=prompt,
        ids=tokens.ids,
        pieces=pieces,
        words=tuple(words),
        groups=tuple(words.values()),
        loose=_runs(pieces, loose),
        start=tuple(added[: len(first.start)]),
        end=tuple(added[len(first.start) : first.length - first.reads]),
        padding=tuple(added[first.length - first.reads :]),
        stop=len(prompt) if whole else last,
    )


def _runs(pieces: Sequence[Piece], tokens: Sequence[int]) -> tuple[Group, ...]:
    """Tokens of the prompt, in its order, with those together between which nothing stands."""
    runs: list[Group] = []
    end = -1
    for k in tokens:
        span = pieces[k].span
        assert span is not None
        if span[0] <= end:
            runs[-1] = (*runs[-1], k)
        else:
            runs.append((k,))
        end = max(end, span[1])
    return tuple(runs)


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")

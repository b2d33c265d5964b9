"""Over many prompts: which words trigger most, and what kind of words they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .explanation import Explanation, Word
from .word_kinds import KINDS, Kind

__all__ = ["KindRow", "Summary", "Trigger", "summarize"]


@dataclass(frozen=True)
class Trigger:
    """A word, over all prompts that were looked at.

    Attributes:
        word: Casefolded.
        kind: The kind that it has most often.
        prompts: How many of the prompts hold it.
        top: In how many it is the word with the highest score.
        share: Of a prompt's positive scores what it has, in 0..1, mean over these prompts.
        effect: Its score, mean over these prompts; by occlusion in units of the detector's score.
    """

    word: str
    kind: Kind
    prompts: int
    top: int
    share: float
    effect: float


@dataclass(frozen=True)
class KindRow:
    """A kind of words.

    Attributes:
        kind: The kind.
        words: How many of the words are of that kind.
        top: In how many prompts the word with the highest score is.
        share: Of a prompt's positive scores what a word of that kind has, mean over its words.
        effect: A word's score, mean over its words.
    """

    kind: Kind
    words: int
    top: int
    share: float
    effect: float


@dataclass(frozen=True)
class Summary:
    """What triggers over a file of prompts.

    Attributes:
        prompts: How many were looked at.
        flagged: How many of them are memorised; None if one has no verdict.
        triggers: Words of the prompts that are flagged, of all if none is; those that are the top
            word of most prompts first, then by share.
        kinds: Those that occur in the same prompts.
    """

    prompts: int
    flagged: int | None
    triggers: tuple[Trigger, ...]
    kinds: tuple[KindRow, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


_Seen = tuple[Word, float, bool]  # a word, its share, whether it is its prompt's top


def summarize(explanations: Sequence[Explanation]) -> Summary:
    """Count words and kinds; a word that a prompt holds twice counts by its larger score."""
    by_word: dict[str, list[_Seen]] = defaultdict(list)
    by_kind: dict[Kind, list[_Seen]] = defaultdict(list)
    for explanation in [each for each in explanations if each.memorized] or explanations:
        top = explanation.ranked[0]
        once: dict[str, _Seen] = {}
        for word, share in zip(explanation.words, explanation.shares(), strict=True):
            seen = (word, share, word is top)
            by_kind[word.kind].append(seen)
            name = word.word.casefold()
            once[name] = max(once.get(name, seen), seen, key=lambda each: each[0].score)
        for name, seen in once.items():
            by_word[name].append(seen)
    words = [
        Trigger(name, _most_often([word.kind for word, *_ in seen]), len(seen), *_means(seen))
        for name, seen in by_word.items()
    ]
    verdicts = [each.memorized for each in explanations]
    return Summary(
        prompts=len(explanations),
        flagged=None if None in verdicts else sum(map(bool, verdicts)),
        triggers=tuple(sorted(words, key=lambda each: (-each.top, -each.share, each.word))),
        kinds=tuple(
            KindRow(kind, len(by_kind[kind]), *_means(by_kind[kind]))
            for kind in KINDS
            if kind in by_kind
        ),
    )


def _means(seen: Sequence[_Seen]) -> tuple[int, float, float]:
    """How often on top; mean share; mean score."""
    top = sum(is_top for *_, is_top in seen)
    share = sum(share for _, share, _ in seen) / len(seen)
    return top, share, sum(word.score for word, *_ in seen) / len(seen)


def _most_often(kinds: Sequence[Kind]) -> Kind:
    return max(KINDS, key=kinds.count)

"""What to change in a prompt so that its score falls under the threshold: counterfactuals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mnemoscope_runtime import CalibrationError, InputError

from ..calibration.remedies import calibrates
from ..detector import Detector
from ..screening.detection import Detection
from .words import Reading, Span, edited, read, words_of

__all__ = ["Alternatives", "Change", "Edit", "EditOptions", "Edits", "find_edits"]

Alternatives = Callable[[Sequence[str], int], Sequence[str]]  # for one word of several: others

_WIDEST = 12  # words among which sets are tried exhaustively: those that matter most by themselves


@dataclass(frozen=True)
class Change:
    """A word dropped, or replaced by another; or a sign dropped.

    Attributes:
        word: The word, or the sign.
        span: Its characters in the prompt.
        to: What takes its place; None if nothing does.
    """

    word: str
    span: Span
    to: str | None = None

    def __str__(self) -> str:
        return f"drop {self.word!r}" if self.to is None else f"{self.word!r} -> {self.to!r}"


@dataclass(frozen=True)
class Edit:
    """A prompt that scores no higher than the target.

    Attributes:
        prompt: The changed prompt.
        score: Its score.
        p_value: Its p-value; None without a calibration.
        kept: Share of the letters of the prompt's words that are unchanged, in 0..1.
        changes: What was changed, in the order of the prompt.
    """

    prompt: str
    score: float
    p_value: float | None
    kept: float
    changes: tuple[Change, ...]

    @property
    def ordinary(self) -> bool:
        """Whether at least half of all benign prompts score as high; True if not calibrated.

        An edit that only just gets under the threshold often still recites.
        """
        return self.p_value is None or self.p_value >= 0.5

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        changes = [{"word": c.word, "span": c.span, "to": c.to} for c in self.changes]
        return {
            "prompt": self.prompt,
            "score": self.score,
            "p_value": self.p_value,
            "kept": self.kept,
            "changes": changes,
        }


@dataclass(frozen=True)
class EditOptions:
    """How to look for edits.

    Attributes:
        keep: Words that may not be changed, in any case.
        target: The highest score that will do; the calibration's threshold by default.
        alternatives: What may replace a word; by default words are only dropped.
        budget: The most prompts to score.
        signs: Whether signs that belong to no word, such as commas, may be dropped too.
        most: The most edits to report.

    Raises:
        InputError: words to keep are one text.
    """

    keep: Sequence[str] = ()
    target: float | None = None
    alternatives: Alternatives | None = None
    budget: int = 256
    signs: bool = False
    most: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.keep, str):
            raise InputError(
                "Words to keep come in a sequence, not as one text. "
                f"Wrap what you have: keep=({self.keep[:60]!r},)."
            )


@dataclass(frozen=True)
class Edits:
    """What was found.

    Attributes:
        found: All of the same number of changes; first those that score as ordinary benign prompts
            do (`Edit.ordinary`), of these those that keep most of the prompt, then the others,
            those with the lowest score first. Empty if the prompt is under the target as it is, or
            if nothing was found.
        needed: Whether the prompt is above the target.
        target: The target.
        tried: How many changed prompts were scored.
        smallest: Whether every smaller set of the changes considered was tried and did not do.
    """

    found: tuple[Edit, ...]
    needed: bool
    target: float
    tried: int
    smallest: bool


def find_edits(
    detector: Detector,
    prompt: str,
    options: EditOptions | None = None,
    *,
    steps: int = 1,
    noises: int | None = None,
) -> Edits:
    """The smallest sets of words whose removal or replacement brings a prompt under the target.

    Every single change is tried, then words are changed one after the other, the best next one each
    time, until that is enough; then smaller sets than that are tried, the most promising first,
    for as long as the budget lasts. A prompt is never left without words.

    Args:
        detector: What scores prompts.
        prompt: The prompt.
        options: How to look for edits.
        steps: Denoising steps to measure.
        noises: How many noises of the bundle's bank; all by default.

    Raises:
        CalibrationError: there is neither a target nor a calibration to take it from.
        InputError: the prompt holds no words, or an option cannot be used.
        NumericsError: a score is NaN or infinite.
    """
    options = options or EditOptions()
    if options.budget < 1 or options.most < 1:
        raise InputError("Edits need a budget of at least 1, and at least 1 to report.")
    if options.target is not None and not math.isfinite(options.target):
        raise InputError(f"The target {options.target} is no score. Give a finite number.")
    reading = read(detector.screener.tokenizer, prompt)
    search = _Search(detector, reading, options, steps, noises)
    if search.whole.score <= search.target:
        return Edits((), False, search.target, 0, True)
    found, smallest = search.run()
    return Edits(search.ranked(found), True, search.target, search.tried, smallest)


_Set = tuple[Change, ...]  # of different words, in the order of the prompt


class _Search:
    """One search: scores what it has not scored before, within the budget."""

    def __init__(
        self,
        detector: Detector,
        reading: Reading,
        options: EditOptions,
        steps: int,
        noises: int | None,
    ) -> None:
        self._detector, self._steps, self._noises = detector, steps, noises
        self._reading = reading
        self._budget = options.budget
        self._most = options.most
        self._known: dict[str, Detection] = {}
        self.tried = 0
        [self.whole] = self._screen([reading.prompt])
        target = options.target if options.target is not None else self.whole.threshold
        if target is None:
            setting = detector.setting(steps=steps, noises=noises)
            raise CalibrationError(
                f"There is no calibration of {setting}, so no threshold to get under. "
                f"{calibrates(detector.screener.bundle.path, setting.options)} Or give a target "
                "score."
            )
        self.target = target
        self._changes = _changes(reading, options)

    def run(self) -> tuple[list[_Set], bool]:
        """The sets that do, and whether every smaller one was tried."""
        words = self._reading.words
        last = words[0] if len(words) == 1 else None  # which stays, in one way or another
        singles = [(change,) for change in self._changes if change.to or change.span != last]
        scored = self._score(singles)
        hits = self._hits(scored)
        complete = len(scored) == len(singles)
        if hits or not scored:
            return hits, True
        best = _best_of_each_word({each[0]: score for each, score in scored.items()})
        enough = self._greedy(best)
        largest = len(self._reading.words) - 1 if enough is None else len(enough)
        for size in range(2, min(largest, len(best)) + 1):
            sets = list(_sets(best, size))
            scored = self._score(sets)
            hits = self._hits(scored)
            if hits:
                return hits, complete
            whole = len(best) <= _WIDEST and len(self._changes) == sum(map(len, best.values()))
            complete = complete and whole and len(scored) == len(sets)
            if not self._left:
                break
        return ([] if enough is None else [enough]), complete and enough is None

    def ranked(self, sets: Iterable[_Set]) -> tuple[Edit, ...]:
        """The best of those that change the same words in the same way, best first."""
        edits: dict[object, Edit] = {}
        for each in sorted(sets, key=lambda each: self._known[self._text(each)].score):
            way = tuple((change.span, change.to is None) for change in each)
            edits.setdefault(way, self._edit(each))
        return tuple(sorted(edits.values(), key=_rank)[: self._most])

    def _greedy(self, best: dict[Span, list[Change]]) -> _Set | None:
        """The best change, and the best one besides, until it is enough."""
        chosen: _Set = ()
        for _ in range(len(self._reading.words) - 1):
            taken = {change.span for change in chosen}
            nexts = [
                tuple(sorted((*chosen, change), key=lambda c: c.span))
                for span, changes in best.items()
                if span not in taken
                for change in changes
            ]
            scored = self._score(nexts)
            if not scored:
                return None
            chosen = min(scored, key=lambda each: scored[each])
            if scored[chosen] <= self.target:
                return chosen
        return None

    def _hits(self, scored: dict[_Set, float]) -> list[_Set]:
        return [each for each, score in scored.items() if score <= self.target]

    @property
    def _left(self) -> int:
        return self._budget - self.tried

    def _score(self, sets: Sequence[_Set]) -> dict[_Set, float]:
        """Of as many as the budget allows, the first ones."""
        texts = {each: self._text(each) for each in sets}
        new = list(dict.fromkeys(text for text in texts.values() if text not in self._known))
        new = new[: self._left]
        self.tried += len(new)
        if new:
            self._known |= dict(zip(new, self._screen(new), strict=True))
        return {
            each: self._known[text].score for each, text in texts.items() if text in self._known
        }

    def _screen(self, texts: list[str]) -> list[Detection]:
        return self._detector.screen(texts, steps=self._steps, noises=self._noises)

    def _text(self, changes: _Set) -> str:
        return edited(self._reading.prompt, {c.span: c.to or "" for c in changes})

    def _edit(self, changes: _Set) -> Edit:
        text = self._text(changes)
        letters = {span: span[1] - span[0] for span in self._reading.words}
        gone = sum(letters.get(change.span, 0) for change in changes)
        kept = 1 - gone / sum(letters.values())
        return Edit(text, self._known[text].score, self._known[text].p_value, kept, changes)


def _rank(edit: Edit) -> tuple[bool, float, float]:
    """What comes first: what keeps most of those that are ordinary, then what scores least."""
    if edit.ordinary:
        return False, -edit.kept, edit.score
    return True, edit.score, -edit.kept


def _changes(reading: Reading, options: EditOptions) -> list[Change]:
    """Every change of one word or sign that is allowed."""
    words = reading.texts
    kept = {word.casefold() for phrase in options.keep for word in words_of(phrase)}
    missing = kept - {word.casefold() for word in words}
    if missing:
        raise InputError(
            f"{', '.join(map(repr, sorted(missing)))} cannot be kept: no word of the prompt is "
            f"called that. Its words are: {' '.join(words)[:200]}"
        )
    found = []
    for i, (word, span) in enumerate(zip(words, reading.words, strict=True)):
        if word.casefold() in kept:
            continue
        found.append(Change(word, span))
        others = options.alternatives(words, i) if options.alternatives is not None else ()
        found += [Change(word, span, to) for to in dict.fromkeys(others) if to and to != word]
    if options.signs:
        spans = (reading.span(each) for each in reading.loose if reading.text(each).strip())
        found += [Change(reading.prompt[slice(*span)], span) for span in spans if span is not None]
    if not found:
        raise InputError("Every word of the prompt is to be kept, so there is nothing to change.")
    return found


def _best_of_each_word(scores: dict[Change, float]) -> dict[Span, list[Change]]:
    """Its removal and its best replacement; words whose change matters most first."""
    best: dict[Span, dict[bool, Change]] = {}
    for change in sorted(scores, key=lambda change: scores[change]):
        best.setdefault(change.span, {}).setdefault(change.to is None, change)
    return {span: list(ways.values()) for span, ways in best.items()}


def _sets(best: dict[Span, list[Change]], size: int) -> Iterator[_Set]:
    """Sets of changes of that many words, the most promising words first."""
    ordered = list(best)[:_WIDEST]
    ranks = {span: rank for rank, span in enumerate(ordered)}
    combinations = itertools.combinations(ordered, size)
    for spans in sorted(combinations, key=lambda spans: sum(ranks[span] for span in spans)):
        yield from itertools.product(*(best[span] for span in sorted(spans)))

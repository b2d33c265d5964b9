"""What may replace a word: a user's list, or words that stand in the same place elsewhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mnemoscope_runtime import InputError

from .words import words_of

__all__ = ["Listed", "Vocabulary", "read_lists"]

_MOST = 3  # replacements that a vocabulary offers for a word


class Listed:
    """Replacements that a user named, word by word."""

    def __init__(self, lists: dict[str, list[str]]) -> None:
        self._lists = {word.casefold(): others for word, others in lists.items()}

    def __call__(self, words: Sequence[str], index: int) -> list[str]:
        """What may replace one of the words."""
        return self._lists.get(words[index].casefold(), [])


class Vocabulary:
    """Words of other prompts, by their neighbours.

    A word is offered in place of another if it has stood between the same two words, or else after
    the same one; the most frequent ones first. That knows no grammar: a preposition in common is
    all that two words have to share.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        """Count the words of prompts."""
        self._between: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._after: dict[str, Counter[str]] = defaultdict(Counter)
        for prompt in prompts:
            words = words_of(prompt)
            for i, word in enumerate(words):
                left, right = _neighbours(words, i)
                self._between[left, right][word] += 1
                self._after[left][word] += 1

    def __call__(self, words: Sequence[str], index: int) -> list[str]:
        """What may replace one of the words."""
        left, right = _neighbours(words, index)
        between, after = self._between.get((left, right)), self._after.get(left)
        ordered = [word for count in (between, after) if count for word, _ in count.most_common()]
        own = words[index].casefold()
        return [word for word in dict.fromkeys(ordered) if word.casefold() != own][:_MOST]


def read_lists(path: str | Path) -> dict[str, list[str]]:
    """Read lines of the form "key: value, value"; blank ones and those after # are skipped.

    Raises:
        InputError: the file cannot be read, or a line has another form.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Give a text file in UTF-8.") from None
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, colon, rest = line.partition(":")
        values = [value.strip() for value in rest.split(",") if value.strip()]
        if not colon or not key.strip() or not values:
            raise InputError(
                f"{path}, line {number}: not of the form `word: other, other`. Correct the line."
            )
        found.setdefault(key.strip(), []).extend(values)
    return found


def _neighbours(words: Sequence[str], index: int) -> tuple[str, str]:
    left = words[index - 1].casefold() if index else ""
    right = words[index + 1].casefold() if index + 1 < len(words) else ""
    return left, right

"""What kind of word a word is, by lists and a few rules.

No part-of-speech tagger and no download: a lexicon of one's own, the common English words in
`english.txt`, then what stands around a word. Where nothing applies the answer is "other": the
rules do not know. They take the last content word of a phrase for an object, and a capital within a
prompt for a name, so that names in lower case and objects in capitals come out wrong; they know no
sense of a word, and no language but English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from mnemoscope_runtime import InputError

from .vocabulary import read_lists
from .words import Span

__all__ = ["KINDS", "Kind", "Lexicon", "classify", "read_lexicon"]

Kind = Literal["object", "attribute", "name", "place", "number", "function", "other"]
"""Of what kind a word is."""
Lexicon = Mapping[str, Kind]  # by the word, casefolded
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds of words."""

ENGLISH = Path(__file__).with_name("english.txt")
_NUMBER = re.compile(r"(?=\D*\d)[\d.,:/x'-]+(?:st|nd|rd|th|s|k|p|mm|cm|px)?")
_SUFFIXES = ("ish", "ful", "less", "ous", "ive", "able", "ible", "ical", "esque")


def classify(prompt: str, words: Sequence[Span], lexicon: Lexicon | None = None) -> list[Kind]:
    """The kind of each word.

    Args:
        prompt: The prompt.
        words: Spans of its words, of `word_spans`.
        lexicon: Kinds of words that are known; it goes before the rules.
    """
    texts = [prompt[start:end] for start, end in words]
    known = [_known(text, lexicon or {}) for text in texts]
    cased = sum(text[:1].isupper() for text in texts) < len(texts)  # else capitals say nothing
    found: list[Kind] = []
    for i, (text, kind) in enumerate(zip(texts, known, strict=True)):
        if kind is None and cased and i and text[:1].isupper():
            kind = "name"
        if kind is None:
            last = i + 1 == len(texts)
            after = "" if last else prompt[words[i][1] : words[i + 1][0]].strip()
            kind = "object" if last or after or known[i + 1] in ("function", "number") else "other"
        found.append(kind)
    return found


def read_lexicon(path: str | Path) -> dict[str, Kind]:
    """Read lines of the form "kind: word, word".

    Raises:
        InputError: the file cannot be read, or names a kind that there is not.
    """
    found: dict[str, Kind] = {}
    for name, values in read_lists(path).items():
        kind = {known: known for known in KINDS}.get(name.casefold())  # type: ignore[call-overload]
        if kind is None:
            raise InputError(f"{path}: there is no kind {name!r}. Use: {', '.join(KINDS)}.")
        found |= {word.casefold(): kind for word in values}
    return found


def _known(word: str, lexicon: Lexicon) -> Kind | None:
    plain = word.casefold()
    known = lexicon.get(plain) or _english().get(plain)
    if known is not None:
        return known
    if _NUMBER.fullmatch(plain):
        return "number"
    return "attribute" if plain.endswith(_SUFFIXES) else None


@cache
def _english() -> Lexicon:
    return read_lexicon(ENGLISH)

"""What kind of word a word is, by a few rules and what lists say.

No part-of-speech tagger and no download: closed lists of English, then what stands around a word.
A lexicon of one's own goes first. Where nothing applies the answer is "other", which says that the
rules do not know. They take the last content word of a phrase for an object and capitals within a
prompt for a name, so that titles in capitals are all names; they know no sense of a word, and no
language but English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from mnemoscope_runtime import InputError

from .vocabulary import read_lists
from .words import Span

__all__ = ["KINDS", "Kind", "Lexicon", "classify", "read_lexicon"]

Kind = Literal["object", "attribute", "name", "place", "number", "function", "other"]
Lexicon = Mapping[str, Kind]  # by the word, casefolded
KINDS: tuple[Kind, ...] = get_args(Kind)

_NUMBER = re.compile(r"[\d.,:/x'-]*\d[\d.,:/x'-]*(st|nd|rd|th|s|k|p|mm|cm|px)?", re.IGNORECASE)
_FUNCTION = frozenset(
    """a about above across after against all along also among an and any are around as at be
    because been before behind being below beneath beside between beyond both but by can could did
    do does down during each either every few for from had has have he her hers him his how i if in
    inside into is it its itself just may me might more most much my near neither no nor not of off
    on onto or our out outside over own per she should since so some such than that the their them
    then there these they this those through to too toward towards under until up upon us very via
    was we were what when where which while who whom whose why will with within without would you
    your""".split()
)
_WORDED = frozenset(
    """one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    hundred thousand million first second third fourth fifth""".split()
)
_ATTRIBUTE = frozenset(
    """abstract ancient antique bad beautiful best big black blue blurry bold bright broken brown
    clean cold colorful colourful cool crimson cute cyan dark deep detailed digital dramatic dry
    elegant empty epic flat floral fresh full giant gold golden good gray great green grey hairy
    happy hd high hot huge indoor large light little long low magenta massive medium metal metallic
    minimalist modern narrow new nice old olive orange outdoor pale pastel pink plain plastic pretty
    purple rare realistic red retro rough round royal rustic sad sharp shiny short silver simple
    small smiling smooth soft square steel sunny tall teal thick thin tiny top turquoise ugly
    vibrant vintage violet warm wet white wide wild wooden yellow young""".split()
)
_SUFFIXES = ("ish", "ful", "less", "ous", "ive", "able", "ible", "ical", "esque")
_PLACES = frozenset(
    """africa america amsterdam argentina asia athens atlanta australia austria bali barcelona
    beijing belgium berlin boston brazil brooklyn budapest cairo california canada chicago chile
    china colorado copenhagen cuba dallas delhi denmark detroit dubai dublin edinburgh egypt england
    europe finland florence florida france germany greece hawaii hollywood houston hungary iceland
    india indonesia iran iraq ireland israel istanbul italy jamaica japan jerusalem kenya korea kyoto
    lisbon london madrid malaysia manhattan melbourne mexico miami milan montreal moscow mumbai nepal
    netherlands norway oslo paris peru philadelphia poland portugal prague rome russia scotland
    seattle seoul shanghai singapore spain stockholm sweden switzerland sydney taiwan texas thailand
    tokyo toronto turkey ukraine usa vancouver venice vienna vietnam wales washington
    zurich""".split()
)


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
    if plain in lexicon:
        return lexicon[plain]
    if _NUMBER.fullmatch(plain) or plain in _WORDED:
        return "number"
    if plain in _FUNCTION:
        return "function"
    if plain in _PLACES:
        return "place"
    if plain in _ATTRIBUTE or plain.endswith(_SUFFIXES):
        return "attribute"
    return None

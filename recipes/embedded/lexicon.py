"""`python -m recipes.embedded.lexicon`: kinds of the captions' words, for explanations.

What the generator draws from its lists is known; other words of captions name things, less those
that any English caption might hold.
"""

from __future__ import annotations

import textwrap

from benchmarks.running import run_main
from mnemoscope import embedded
from mnemoscope.explain import Kind, read_lexicon
from mnemoscope.explain.word_kinds import ENGLISH
from mnemoscope.explain.words import words_of

from .captions import CITIES, KINDS, OCCASIONS, PATTERNS, PERSONS, PLACEMENTS, TONES, VENDORS

LISTS: dict[Kind, tuple[str, ...]] = {
    "name": (*PERSONS, *VENDORS),
    "place": CITIES,
    "attribute": (*TONES, *PLACEMENTS, *PATTERNS),
    "object": (*KINDS, *OCCASIONS),
}


def lexicon() -> dict[str, Kind]:
    """The kind of every word."""
    english = read_lexicon(ENGLISH)
    known = {
        word: kind
        for kind, phrases in LISTS.items()
        for phrase in phrases
        for word in words_of(phrase)
        if english.get(word) != "function"
    }
    captions = [row.prompt for row in embedded.read_prompts()]
    words = {word for caption in captions for word in words_of(caption)}
    things = {word for word in words if not word.isdigit() and word not in english}
    return dict.fromkeys(things, "object") | known


def main() -> None:
    lines = ["# kinds of the captions' words; made by recipes/embedded/lexicon.py"]
    found = lexicon()
    for kind in sorted(set(found.values())):
        words = ", ".join(sorted(word for word in found if found[word] == kind))
        lines += [f"{kind}: {line.strip(', ')}" for line in textwrap.wrap(words, 86)]
    embedded.LEXICON.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    run_main(main)

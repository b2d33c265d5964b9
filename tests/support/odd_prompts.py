"""Odd prompts, the same on every run; also for environments with other versions of transformers."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from functools import cache
from unicodedata import ucd_3_2_0

WORDS = ["cat", "Dog", "PAINTING", "of", "a", "the", "Van", "Gogh's", "don't", "we'LL", "1889"]
ACCENTS = ["café", "naïve", "Ångström", "façade", "żółw", "Việt Nam", "ﬁne", "Straße", "İstanbul"]
CJK = ["猫の絵", "一只猫", "고양이", "寿司", "绘画", "日本語 text", "ｆｕｌｌ"]  # noqa: RUF001
TOWERS = ["東京タワー", "東 京", "𠀋", "\uf900", "タワー123"]
RIGHT_TO_LEFT = ["قطة على السطح", "חתול", "\u202eabc\u202c", "لوحة 12 زيتية"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "1️⃣", "👨🏿‍🚀", "\u200d", "\ufe0f"]
SPACE = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\x85"]
CONTROL = [chr(code) for code in [*range(0x00, 0x20), *range(0x7F, 0xA0), 0xFEFF, 0xFFFD, 0xFFFE]]
DIGITS = ["0", "1234567890", "3.14159", "1,000,000", "½", "²", "٣", "Ⅷ", "0x1F", "12:30"]
SPECIAL = ["<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "<|endoftext", "</w>", "<|>", "!"]
SPELLED = ["!<|ENDOFTEXT|>", "<|startOfText|>", "<|end\u200boftext|>", "<|\u017ftartoftext|>"]
PUNCTUATION = ["!!!", "...", "?!?!", "((((", "--", "—", "'s", "''", '"', "@#$%^&*", "_", "\\", "¿¡"]
ENTITIES = ["&amp;", "&lt;b&gt;", "&#39;", "&nbsp;", "“quoted”", "it’s", "ï»¿", "â€™"]  # noqa: RUF001
GREEK = ["ΟΔΟΣ", "Σ", "ΑΣ'Α", "σς", "ΣΑΣ.", "Ἀθῆναι", "ΜΕΓΆΛΟΣ", "ʰΣ", "ʰ!Σ\u0345"]  # noqa: RUF001
ADDED = ["<cat-toy>", "<Cat-Toy>", "<x>", "<x>_1", "<x>_2", "<X>", "<flag>", "<cat-toy"]
LONG_S = ["\u017f", "'\u017f"]
SYNTAX = ["(tokyo tower:1.3)", "[a:b:0.5]", "(word)++", "<lora:style:0.8>", "BREAK"]
KINDS = [
    WORDS, ACCENTS, CJK, RIGHT_TO_LEFT, EMOJI, SPACE, CONTROL, DIGITS, SPECIAL, PUNCTUATION,
    ENTITIES, GREEK, ADDED, SYNTAX, TOWERS, SPELLED,
    LONG_S,
]  # fmt: skip


def odd_strings() -> list[str]:
    """Every odd piece alone, then seeded mixtures of them."""
    pieces = [piece for kind in KINDS for piece in kind]
    strings = ["", " " * 300, "a" * 5000, "é" * 400, "😀" * 100, "ab\0cd", "x " * 200, "!" * 200]
    strings += pieces + [f"a{piece}b" for piece in pieces]
    strings += [" ".join(["word"] * count) for count in (73, 74, 75, 76, 77, 78, 150)]
    dice = random.Random(7)
    for _ in range(500):
        kinds = dice.sample(KINDS, dice.randint(1, 4))
        chosen = [dice.choice(dice.choice(kinds)) for _ in range(dice.choice([1, 3, 10, 40, 120]))]
        text = dice.choice(["", " ", ", "]).join(chosen)
        forms: list[Callable[[str], str]] = [
            str,
            str.upper,
            str.title,
            lambda text: unicodedata.normalize("NFC", text),
            lambda text: unicodedata.normalize("NFD", text),
        ]
        strings.append(dice.choice(forms)(text))
    strings += ["".join(dice.choices(_known(), k=dice.randint(1, 60))) for _ in range(400)]
    return strings


@cache
def _known() -> tuple[str, ...]:
    """Characters of Unicode 3.2: libraries differ in which newer ones they know."""
    every = map(chr, range(0x110000))
    return tuple(each for each in every if ucd_3_2_0.category(each) not in ("Cn", "Cs"))

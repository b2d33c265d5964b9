from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from mnemoscope.prompts.printable import json_text, printable, reason_of

HIDDEN = [
    *("\u3164", "\u115f", "\u1160", "\uffa0", "\u2800", "\u034f", "\ufe0f", "\ufe00", "\ufe0e"),
    *("\u180e", "\u180b", "\u17b4", "\U000e0100", "\U000e0001", "\U000e0041", "\U000e007f"),
    *("\u00ad", "\u061c", "\u200b", "\u200d", "\u200e", "\u202e", "\u2060", "\u2066", "\ufeff"),
    *("\u00a0", "\u3000", "\u2028", "\u0085", "\x1b", "\x00", "\ud800", "\ue000", "\U0001d159"),
]


@pytest.mark.parametrize("char", HIDDEN, ids=ascii)
def test_what_shows_nothing_is_spelled_out(char: str) -> None:
    assert printable(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"


def test_what_a_library_says_stands_inside_of_a_sentence() -> None:
    for said in (
        "It is cut. Write it again.",
        "It is cut.\n  Write it again..",
        "It is cut. Write it again",
    ):
        assert reason_of(ValueError(said)) == "It is cut. Write it again"


def test_two_texts_that_differ_look_different() -> None:
    """What is called a filler, a selector, a joiner or blank shows nothing by itself.

    But for the fillers that are punctuation, which are drawn, and the symbol for a blank.
    """
    for code in range(sys.maxunicode + 1):
        name, category = unicodedata.name(chr(code), ""), unicodedata.category(chr(code))
        hidden = any(word in name.split() for word in ("FILLER", "SELECTOR-1", "JOINER", "BLANK"))
        if hidden and category != "Po" and "SYMBOL" not in name:
            assert printable(chr(code)) != chr(code), name


@pytest.mark.parametrize(
    "text", ["plain", "é ü 猫 東京 한국어", "😀", "a\u0301", "עברית", "ไทย", "क्ष"]
)
def test_what_shows_is_left_alone(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("char", [*HIDDEN, "\x7f", "\x9b", "\n"], ids=ascii)
def test_json_escapes_what_shows_nothing_and_loses_none(char: str) -> None:
    for indent in (None, 1):
        text = json_text({f"k{char}": [f"a{char}b", "猫 😀"]}, indent)
        assert all(c.isprintable() or c == "\n" for c in text)
        assert char == "\n" or char not in text
        assert "猫 😀" in text
        assert json.loads(text) == {f"k{char}": [f"a{char}b", "猫 😀"]}


def test_a_width() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("ab\u3164", 20) == "ab\\u3164"

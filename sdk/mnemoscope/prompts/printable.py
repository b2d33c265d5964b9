"""Prompts as text to show: they are hostile input."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import Any

from mnemoscope_runtime.wording import counted

__all__ = ["counted", "json_text", "percent", "percent_within", "printable", "reason_of"]

# what shows nothing although Python calls it printable: Default_Ignorable_Code_Point of Unicode
# (DerivedCoreProperties.txt, the same from version 6 on), and what is drawn blank by its very name
_IGNORABLE = (
    *((0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8)),
    *((0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
_BLANK = (
    (0x2800, 0x2800),  # braille without dots
    (0x2D7F, 0x2D7F),  # Tifinagh consonant joiner
    (0x1107F, 0x1107F),  # Brahmi number joiner
    (0x13441, 0x13442),  # Egyptian blanks
    (0x16FE4, 0x16FE4),  # Khitan filler
    (0x1D159, 0x1D159),  # a note without a head
)
_RANGES = sorted(_IGNORABLE + _BLANK)
_STARTS = [start for start, _ in _RANGES]


def percent(share: float, digits: int = 3) -> str:
    """A share in percent.

    Args:
        share: In 0..1.
        digits: How many matter.
    """
    return f"{100 * share:.{digits}g} %"


def percent_within(share: float, low: float, high: float) -> str:
    """A share with its interval, in whole per cent: `72 % [62, 81]`.

    Args:
        share: In 0..1.
        low: Of the interval.
        high: Likewise.
    """
    return f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def reason_of(error: object) -> str:
    """What a library says, to stand inside of a sentence: in one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(" .")


def printable(text: str, width: int | None = None) -> str:
    """Text that cannot move the cursor or hide anything, cut to `width` if there is one.

    Controls, and what shows nothing, are spelled out, so that two texts that differ look different.
    """
    safe = "".join(
        c if (c.isascii() and c.isprintable()) or _shows(c) else c.encode("unicode_escape").decode()
        for c in text
    )
    return safe if width is None or len(safe) <= width else safe[: max(1, width - 1)] + "…"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which what `printable` spells out is escaped, so that nothing is lost.

    Args:
        value: What `json.dumps` takes.
        indent: Likewise.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        c if c == "\n" or (c.isascii() and c.isprintable()) or _shows(c) else json.dumps(c)[1:-1]
        for c in text
    )


def _shows(char: str) -> bool:
    if not char.isprintable():
        return False
    place = bisect_right(_STARTS, ord(char)) - 1
    return place < 0 or ord(char) > _RANGES[place][1]

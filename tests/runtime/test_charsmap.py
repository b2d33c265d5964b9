"""Tables of spellings that lead nowhere are refused before the library follows them."""

from __future__ import annotations

import pytest
from charsmaps import BLOCK, LEAF, SPELLINGS, charsmap, packed, unpacked
from tokenizers import normalizers

from mnemoscope_runtime.charsmap import check_charsmap
from mnemoscope_runtime.tokenizer_json import Refused


def test_a_table_spells_as_it_says() -> None:
    """The builder of these tests against the library that reads them."""
    table = charsmap()
    check_charsmap(table)
    spell = normalizers.Precompiled(table).normalize_str
    for character, spelled in SPELLINGS.items():
        assert spell(f"x{character}y") == f"x{spelled}y"
    assert spell("plain, Ω, 東京") == "plain, Ω, 東京"


def test_an_empty_table() -> None:
    check_charsmap(charsmap({}))


def test_a_table_without_spellings() -> None:
    units, _ = unpacked(charsmap({}))
    check_charsmap(packed(units, b""))


def test_the_most_bytes_of_a_character() -> None:
    check_charsmap(charsmap({"a": "x" * 64}))
    with pytest.raises(Refused, match="more than 64 bytes"):
        check_charsmap(charsmap({"a": "x" * 65, "b": "y"}))


UNITS, TEXT = unpacked(charsmap())
FIRST = next(k for k in range(BLOCK, len(UNITS)) if 0 < UNITS[k] < LEAF)
BEYOND = 2 ** len(UNITS).bit_length()
VALUE = next(k for k in range(len(UNITS)) if UNITS[k] >= LEAF)


def changed(place: int, unit: int) -> bytes:
    return packed([*UNITS[:place], unit, *UNITS[place + 1 :]], TEXT)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"", "cut off"),
        (bytes(2**22 + 1), "bytes"),
        (bytes(8), "cut off"),
        (charsmap()[: 4 * BLOCK], "cut off"),
        (packed(UNITS[:-1], TEXT), "cut off"),
        (packed(UNITS, b"")[:-1], "cut off"),
        (packed(UNITS, b"\xff\xfe"), "no text"),
        (changed(0, 2**21 << 10), "no root"),
        (changed(0, 2**21 - 1 << 10), "outside of itself"),
        (changed(FIRST, (FIRST ^ len(UNITS)) << 10), "outside of itself"),
        (changed(FIRST, BEYOND >> 8 << 10 | 0x200), "outside of itself"),
        (changed(VALUE, LEAF | len(TEXT)), "not there"),
        (changed(VALUE, LEAF | 2**31 - 1), "not there"),
        (packed(UNITS, "é".encode() * len(TEXT)), "half a character|more than 64"),
        (packed(UNITS, b"x" * 10_000), "more than 64 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_that_do_harm(table: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        check_charsmap(table)


def test_what_the_root_says_of_bytes_is_not_read() -> None:
    table = changed(0, UNITS[0] | 0xFF)
    check_charsmap(table)
    assert normalizers.Precompiled(table).normalize_str("½") == "1\u20442"


def test_half_a_character() -> None:
    table = charsmap({"a": "é", "b": "x"})
    units, text = unpacked(table)
    place = units.index(LEAF)
    with pytest.raises(Refused, match="half a character"):
        check_charsmap(packed([*units[:place], LEAF | 1, *units[place + 1 :]], text))

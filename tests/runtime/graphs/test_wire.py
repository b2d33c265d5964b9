from __future__ import annotations

import pytest

from mnemoscope_runtime.graphs.wire import (
    EIGHT_BYTES,
    FOUR_BYTES,
    VARINT,
    Reader,
    Refused,
    many,
    message,
    one,
)

KIND = message(
    "Kind",
    {9: "a horse"},
    number=one(1, VARINT),
    text=one(2),
    numbers=many(3, VARINT),
    texts=many(4),
    four=one(5, FOUR_BYTES),
    eight=one(6, EIGHT_BYTES),
    far=one(100, VARINT),
)


def fields(content: bytes, most: int = 100) -> dict[str, object]:
    found = Reader(most).fields(memoryview(content), KIND)
    return {
        name: bytes(value)
        if isinstance(value, memoryview)
        else [bytes(each) if isinstance(each, memoryview) else each for each in value]
        if isinstance(value, list)
        else value
        for name, value in found.items()
    }


def test_what_every_wire_type_holds() -> None:
    content = b"\x08\x96\x01\x12\x02ab\x18\x00\x18\x7f\x22\x00\x22\x01c\x2d1234\x31"
    content += b"12345678\xa0\x06" + b"\xff" * 9 + b"\x01"
    assert fields(content) == {
        "number": 150,
        "text": b"ab",
        "numbers": [0, 127],
        "texts": [b"", b"c"],
        "four": b"1234",
        "eight": b"12345678",
        "far": 2**64 - 1,
    }
    assert fields(b"") == {}


def test_long_bytes() -> None:
    assert fields(b"\x12\x80\x01" + b"a" * 128) == {"text": b"a" * 128}
    assert fields(b"\x12\x7f" + b"a" * 127) == {"text": b"a" * 127}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x08\x01\x08\x01", "its Kind has number twice"),
        (b"\x12\x00\x12\x00", "its Kind has text twice"),
        (b"\x40\x01", "its Kind has a field 8 of wire type 0"),
        (b"\x0a\x01a", "its Kind has a field 1 of wire type 2"),  # packed
        (b"\x4a\x00", "its Kind has a horse"),
        (b"\x0b\x0c", "its Kind has a field 1 of wire type 3"),  # a group
        (b"\x88\x00\x01", "a number that is written too long"),  # the tag of `number`, longer
        (b"\x08\x81\x00", "a number that is written too long"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "a number that is written too long"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "a number without an end"),
        (b"\x08", "a number without an end"),
        (b"\x08\x80", "a number without an end"),
        (b"\x12", "a number without an end"),
        (b"\x12\x01", "its Kind is cut short"),
        (b"\x12\x82\x01" + b"a" * 129, "its Kind is cut short"),
        (b"\x2d123", "its Kind is cut short"),
        (b"\x311234567", "its Kind is cut short"),
        (b"\x12" + b"\xff" * 9 + b"\x01" + b"a", "its Kind is cut short"),
        (b"\x80", "a number without an end"),
    ],
)
def test_what_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        fields(content)


def test_the_fields_of_all_messages_are_counted() -> None:
    reader, content = Reader(most=4), memoryview(b"\x18\x01" * 2)
    reader.fields(content, KIND)
    reader.fields(content, KIND)
    with pytest.raises(Refused, match="it has more than 4 fields"):
        reader.fields(content, KIND)

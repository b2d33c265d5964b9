"""Protocol buffers' wire format, read strictly and without their library.

Parsers differ in what they make of odd files: of a field that is there twice they take the last, or
merge both; what they do not know they keep, or drop. All of that is refused here, so that whoever
parses the same bytes later sees the same message. Nothing recurses: a message within a message
comes as bytes, to be read when it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BYTES",
    "EIGHT_BYTES",
    "FOUR_BYTES",
    "VARINT",
    "Field",
    "Message",
    "Reader",
    "Refused",
    "many",
    "message",
    "one",
]

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types; 3 and 4 are those of groups
_SIZES = {EIGHT_BYTES: 8, FOUR_BYTES: 4}


class Refused(ValueError):
    """What a graph must not hold; says what, so that it can stand behind the graph's name."""


@dataclass(frozen=True)
class Field:
    """What a message may hold under a number.

    Attributes:
        number: The field's.
        wire: Its wire type.
        is_repeated: Whether there may be several.
    """

    number: int
    wire: int
    is_repeated: bool


@dataclass(frozen=True)
class Message:
    """A kind of message.

    Attributes:
        name: Its name.
        tags: What it may hold, by the tag that announces it: name, wire type, and whether there may
            be several.
        refused: Names of fields that it could hold elsewhere, by number.
    """

    name: str
    tags: Mapping[int, tuple[str, int, bool]]
    refused: Mapping[int, str]


def one(number: int, wire: int = BYTES) -> Field:
    """A field that a message has once at most."""
    return Field(number, wire, is_repeated=False)


def many(number: int, wire: int = BYTES) -> Field:
    """A field that a message may have several of, each with a tag of its own."""
    return Field(number, wire, is_repeated=True)


def message(name: str, refused: Mapping[int, str], /, **fields: Field) -> Message:
    """A kind of message that has these fields and no others."""
    tags = {
        each.number << 3 | each.wire: (label, each.wire, each.is_repeated)
        for label, each in fields.items()
    }
    return Message(name, tags, refused)


class Reader:
    """Reads the messages of one file.

    Args:
        most: How many fields all of them may have together: what bounds time and memory.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def fields(self, content: memoryview, kind: Message) -> dict[str, Any]:
        """The fields of a message by name.

        Args:
            content: The message, and nothing else.
            kind: What it should be.

        Returns:
            Varints as unsigned integers of up to 64 bits, all else as views of the content; what
            may be there several times in a list. What is not there has no name here either.

        Raises:
            Refused: it is anything but such a message, or has too many fields.
        """
        found: dict[str, Any] = {}
        tags, at, end = kind.tags, 0, len(content)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise Refused(f"it has more than {self._most:,} fields")
            tag = content[at]
            at += 1
            if tag > 127:  # one byte does for nearly all: the others need not slow them down
                tag, at = _varint(content, at - 1, kind)
            if tag not in tags:
                raise _unexpected(tag, kind)
            name, wire, is_repeated = tags[tag]
            if wire == BYTES:
                if at < end and content[at] < 128:
                    size = content[at]
                    at += 1
                else:
                    size, at = _varint(content, at, kind)
            elif wire != VARINT:
                size = _SIZES[wire]
            value: Any
            if wire == VARINT:
                value, at = _varint(content, at, kind)
            else:
                if size > end - at:
                    raise Refused(f"its {kind.name} is cut short")
                value = content[at : at + size]
                at += size
            if is_repeated:
                if name in found:
                    found[name].append(value)
                else:
                    found[name] = [value]
            elif name in found:
                raise Refused(f"its {kind.name} has {name} twice")
            else:
                found[name] = value
        return found


def _varint(content: memoryview, at: int, kind: Message) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = 0
    for index, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            if value >> 64 or (index and not byte):
                raise Refused(f"its {kind.name} has a number that is written too long")
            return value, at + index + 1
    raise Refused(f"its {kind.name} has a number without an end")


def _unexpected(tag: int, kind: Message) -> Refused:
    number, wire = tag >> 3, tag & 7
    what = kind.refused.get(number, f"a field {number} of wire type {wire}")
    return Refused(f"its {kind.name} has {what}")

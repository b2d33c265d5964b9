"""Thrift's compact protocol, as far as Parquet's headers need it.

A field is a byte with its type and how far its number is from the last one's; whole numbers are
varints, zigzag.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Damaged", "Reader"]

_DEPTH = 16
_TEXT, _LIST, _SET, _STRUCT = 8, 9, 10, 12


class Damaged(Exception):
    """What is read does not follow the protocol; says where not."""


class Reader:
    """Reads from the beginning of some bytes; `at` is how far it came."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct by number, those of structs in it likewise.

        Raises:
            Damaged: there is none.
        """
        if depth > _DEPTH:
            raise Damaged("a header is nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            # true and false are types of their own
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._bytes(8)
        if kind == _TEXT:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth + 1)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise Damaged(f"a header has a field of type {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEPTH:
            raise Damaged("a header is nested too deep")
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self._content) - self.at:  # each takes a byte
            raise Damaged("a header is cut short")
        return [self._value(head & 15, depth) for _ in range(count)]

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise Damaged("a header has a number without an end")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._content[self.at : self.at + count]
        if len(found) < count:
            raise Damaged("a header is cut short")
        self.at += count
        return found

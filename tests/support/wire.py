"""Protocol buffers by hand: messages that owe nothing to the schema that is tested."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "message"]

Value = int | bytes | str


def message(*parts: tuple[int, Value]) -> bytes:
    """A message of numbered fields: whole numbers, bytes, texts, or messages as bytes."""
    return b"".join(
        _varint(number << 3) + _varint(value)
        if isinstance(value, int)
        else _varint(number << 3 | 2) + _sized(value.encode() if isinstance(value, str) else value)
        for number, value in parts
    )


def fields(content: bytes) -> dict[int, list[int | bytes]]:
    """The values of each field of a message, in order."""
    found: dict[int, list[int | bytes]] = {}
    rest = iter(content)
    for key in _varints(rest):
        if key & 7 == 0:
            found.setdefault(key >> 3, []).append(next(_varints(rest)))
        else:
            assert key & 7 == 2
            size = next(_varints(rest))
            found.setdefault(key >> 3, []).append(bytes(next(rest) for _ in range(size)))
    return found


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _varints(rest: Iterator[int]) -> Iterator[int]:
    for byte in rest:
        number, shift = byte & 127, 7
        while byte & 128:
            byte = next(rest)
            number |= (byte & 127) << shift
            shift += 7
        yield number

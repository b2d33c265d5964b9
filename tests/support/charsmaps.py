"""Tables of spellings as SentencePiece has them, as small as can be."""

from __future__ import annotations

import struct
from collections.abc import Mapping

BLOCK = 256
LEAF = 2**31
SPELLINGS = {
    **{chr(0xFF21 + k): chr(65 + k) for k in range(26)},  # full width
    "ﬁ": "fi",
    "\u00a0": " ",
    "\u3000": " ",
    "\t": " ",
    "\n": " ",
    "½": "1\u20442",
    "e\u0301": "é",
}


def charsmap(spellings: Mapping[str, str] = SPELLINGS) -> bytes:
    """Each node of the trie has a block of its own, so that no two ever meet."""
    text, starts = b"", {}
    for spelled in spellings.values():
        starts.setdefault(spelled, len(text))
        text += spelled.encode() + b"\0" if starts[spelled] == len(text) else b""
    nodes: list[dict[int, int]] = [{}]
    ends: dict[int, str] = {}
    for character, spelled in spellings.items():
        node = 0
        for byte in character.encode():
            if byte not in nodes[node]:
                nodes[node][byte] = len(nodes)
                nodes.append({})
            node = nodes[node][byte]
        ends[node] = spelled
    units = [0] * (BLOCK * (len(nodes) + 1))

    def unit(place: int, node: int, byte: int) -> int:
        return (place ^ BLOCK * (node + 1)) << 10 | (node in ends) << 8 | byte

    units[0] = unit(0, 0, 0)
    for node, children in enumerate(nodes):
        base = BLOCK * (node + 1)
        for byte, child in children.items():
            units[base ^ byte] = unit(base ^ byte, child, byte)
        if node in ends:
            units[base] = LEAF | starts[ends[node]]
    return packed(units, text)


def packed(units: list[int], text: bytes) -> bytes:
    """A table of units and spellings, whatever they are."""
    return struct.pack(f"<{len(units) + 1}I", 4 * len(units), *units) + text


def unpacked(table: bytes) -> tuple[list[int], bytes]:
    """The units and spellings of a table."""
    (size,) = struct.unpack_from("<I", table)
    return list(struct.unpack_from(f"<{size // 4}I", table, 4)), table[4 + size :]

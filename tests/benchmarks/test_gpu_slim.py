from __future__ import annotations

import struct

from benchmarks.gpu.slim import programs, slimmed


def program(sm: int, body: bytes, flags: int = 0) -> bytes:
    head = struct.pack("<HHIQIIII", 2, 0, 64, len(body), 0, 0, 0, sm)
    return head.ljust(40, b"\0") + struct.pack("<QQQ", flags, 0, 0) + body


def container(*found: bytes) -> bytes:
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, found))) + b"".join(found)


KEPT = program(90, b".text._Z3add")
PACKED = program(90, b"dda3Z_.txet.", 0x8000)
OTHER = program(80, b".text._Z3add")
NEVER = program(90, b".text._ZN5flash3fwdE")
LIBRARY = b"before--" + container(KEPT, OTHER) + bytes(8) + container(PACKED, NEVER) + b"after"
SECTION = (8, len(LIBRARY) - 5)


def test_programs_of_every_container_are_found() -> None:
    assert [each.sm for each in programs(LIBRARY, *SECTION)] == [90, 80, 90, 90]


def test_what_is_never_run_is_zeros_and_nothing_moves() -> None:
    found = slimmed(LIBRARY, SECTION, 90, lambda packed: packed[::-1])
    assert len(found) == len(LIBRARY)
    before, after = programs(LIBRARY, *SECTION), programs(found, *SECTION)
    kept = [
        found[new.start : new.stop] == LIBRARY[old.start : old.stop]
        for old, new in zip(before, after, strict=True)
    ]
    assert kept == [True, False, True, False]
    for each, same in zip(programs(found, *SECTION), kept, strict=True):
        assert same or not any(found[each.start : each.stop])

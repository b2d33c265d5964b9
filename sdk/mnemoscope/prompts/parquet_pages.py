"""How large the pages of a Parquet column become when they are unpacked, from their headers.

A page of a few bytes may unpack to gigabytes, and what the footer says of it may be a lie; pyarrow
goes by the page's header. Read without pyarrow, whose metadata end the process where they are
damaged (24.0: "terminate called").
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import IO, Any

from .thrift import Damaged, Reader

__all__ = ["Damaged", "TooLarge", "bytes_of_a_row", "rows_of_groups"]

_LARGEST = 32 * 2**20  # of a page; writers aim at 1 MiB
_HEADER = 2**16  # its statistics hold values cut short
_ONCE = (0, 6)  # encodings in which each text stands there: PLAIN and DELTA_LENGTH_BYTE_ARRAY
# numbers of fields: of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData; of PageHeader
_GROUPS, _CHUNKS, _META, _PATH, _PACKED_SIZE, _DATA, _DICTIONARY = 4, 1, 3, 3, 7, 9, 11
_SIZE, _PACKED, _COUNT, _ROWS = 2, 3, 1, 3
_VERSIONS = {5: 2, 8: 4}  # of data pages: where each has its encoding


class TooLarge(Exception):
    """A page unpacks to more than anybody needs."""


def bytes_of_a_row(file: IO[bytes], names: Collection[str], largest: int = _LARGEST) -> int:
    """Bytes that a row may take in memory: those of the largest page by what follows from its kind.

    Args:
        file: A Parquet file; its place is put back.
        names: Columns that are read.
        largest: Bytes that a page may unpack to.

    Raises:
        Damaged: what should be a page is none.
        TooLarge: one unpacks to more than that.
    """
    place = file.tell()
    try:
        chunks = list(_chunks(file, {name.encode() for name in names}))
        return max((size for chunk in chunks for size in _rows(file, chunk, largest)), default=1)
    except (TypeError, AttributeError, LookupError, OverflowError, ValueError):
        raise Damaged("its headers lack what they must have") from None
    finally:
        file.seek(place)


def rows_of_groups(file: IO[bytes]) -> list[int]:
    """How many rows each row group says it has.

    Raises:
        Damaged: they do not say it.
    """
    place = file.tell()
    try:
        found = [group[_ROWS] for group in _groups(file)]
        if any(type(rows) is not int or rows < 0 for rows in found):
            raise Damaged("a row group has no number of rows")
        return found
    except (TypeError, AttributeError, LookupError, OverflowError, ValueError, OSError):
        raise Damaged("its headers lack what they must have") from None
    finally:
        file.seek(place)


def _groups(file: IO[bytes]) -> list[dict[int, Any]]:
    end = file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - length))
    found: list[dict[int, Any]] = Reader(file.read(length)).struct()[_GROUPS]
    return found


def _chunks(file: IO[bytes], names: Collection[bytes]) -> Iterator[dict[int, Any]]:
    """The metadata of each chunk of some columns."""
    for group in _groups(file):
        for chunk in group[_CHUNKS]:
            meta: dict[int, Any] = chunk[_META]
            path = meta[_PATH]
            # pyarrow takes `a.b` for a part of `a`, also where it is a name
            if {path[0], b".".join(path), path[0].split(b".")[0]} & set(names):
                yield meta


def _rows(file: IO[bytes], chunk: dict[int, Any], largest: int) -> Iterator[int]:
    """Bytes of a row by each page."""
    at = min(start for start in (chunk.get(_DICTIONARY), chunk[_DATA]) if start)
    end = at + chunk[_PACKED_SIZE]
    while at < end:
        file.seek(at)
        header = Reader(file.read(_HEADER))
        fields = header.struct()
        size, packed = fields[_SIZE], fields[_PACKED]
        if size < 0 or packed < 0:
            raise Damaged("a page has no size")
        if size > largest:
            raise TooLarge(f"a page unpacks to {size:,} bytes; {largest:,} are accepted")
        at += header.at + packed
        # of a dictionary, every row may be the longest text; of DELTA_BYTE_ARRAY, each may begin
        # with all of the one before
        count = 1
        for version, encoding in _VERSIONS.items():
            if version in fields and fields[version][encoding] in _ONCE:
                count = max(1, fields[version][_COUNT])
        yield max(1, -(-size // count))

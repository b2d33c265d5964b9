"""Parquet, read by pyarrow.

A small file may hold gigabytes: a page unpacks to many times its size, and of a dictionary one long
text may be every row's. So how many rows are read at a time follows from what the pages say of
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

from .parquet_pages import Damaged, TooLarge, bytes_of_a_row
from .printable import reason_of
from .records import Broken, Cell, Record, Wanted, checked, choose, lacks

__all__ = ["parquet_rows"]

_ROWS, _BYTES = 1024, 2**25  # read at a time
_BUFFER = 2**16


def parquet_rows(file: IO[bytes], name: str, columns: Sequence[Wanted]) -> Iterator[Record]:
    """Every row.

    Raises:
        InputError: it is no Parquet file, unpacks to too much, or there is no such column of text.
        BackendUnavailable: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{name} needs pyarrow: {error}. Install it with {pip_install('parquet')}."
        ) from None
    if not file.seekable():
        raise InputError(f"{name} is a pipe, and Parquet is read from its end. Save it to a file.")
    try:
        schema = parquet.read_schema(file)
        chosen = [_place(pyarrow, schema, name, column) for column in columns]
        read = list(dict.fromkeys(schema.names[place] for place in chosen))
        table = parquet.ParquetFile(file, buffer_size=_BUFFER)
        rows = max(1, min(_ROWS, _BYTES // bytes_of_a_row(file, read)))
        number = 0
        for batch in table.iter_batches(rows, columns=read):
            cells = [
                [_cell(value, wanted) for value in _bytes(pyarrow, batch.column(schema.names[at]))]
                for at, wanted in zip(chosen, columns, strict=True)
            ]
            for row in zip(*cells, strict=True):
                number += 1
                yield Record(f"row {number}", row)
    except TooLarge as error:
        raise InputError(
            f"{name}: {error}. Write it with smaller pages, or cut the texts."
        ) from None
    except (pyarrow.ArrowException, Damaged, UnicodeDecodeError) as error:
        raise InputError(f"{name} is no Parquet file, or is damaged: {reason_of(error)}.") from None


def _place(arrow: Any, schema: Any, name: str, wanted: Wanted) -> int:
    try:
        place = choose(schema.names, wanted)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if place is None:
        raise InputError(f"{name} has {lacks(schema.names, wanted)}")
    kind = schema.types[place]
    held = kind.value_type if arrow.types.is_dictionary(kind) else kind
    known = ("string", "large_string", "string_view", "null")
    if str(held) not in known:
        raise InputError(
            f"{name}: the column {schema.names[place]!r} is {kind}, not text. Name the one with "
            f"the {wanted.what}, or write it as strings."
        )
    return place


def _bytes(arrow: Any, values: Any) -> list[bytes | None]:
    """Strings as the bytes that they are: a file may say UTF-8 of what is none."""
    if arrow.types.is_dictionary(values.type):
        places, held = values.indices.drop_null(), len(values.dictionary)
        if len(places) and not 0 <= min(places.to_pylist()) <= max(places.to_pylist()) < held:
            raise Damaged("a row has a text that is not in its dictionary")
        values = values.dictionary_decode()
    found: list[bytes | None] = values.cast(arrow.large_binary()).to_pylist()
    return found


def _cell(value: bytes | None, wanted: Wanted) -> Cell:
    if value is None:
        return Broken(f"no {wanted.what}: null", f"the {wanted.what} is null, not text.")
    return checked(value.decode("utf-8", "surrogateescape"))

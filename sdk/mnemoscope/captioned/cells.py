"""Pictures in the cells of Parquet files: bytes, or a struct of bytes and path.

The struct is what `datasets` writes of its `Image` feature: "bytes", or if they are null "path".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

from ..prompts import Broken
from ..prompts.parquet_pages import Damaged, TooLarge, bytes_of_a_row, rows_of_groups
from ..prompts.printable import reason_of
from .decoding import BYTES, too_large
from .paths import found_inside
from .spots import InFile, InParquet

__all__ = ["Cells", "cell_spots", "holds_paths", "looks_like_pictures", "names_of"]

_PAGE = 2**29  # bytes that one may unpack to: writers put a hundred pictures into one
_ROWS, _BYTES = 32, 2**26  # read at a time
_BUFFER = 2**16
_BINARY = ("binary", "large_binary", "binary_view")
_TEXT = ("string", "large_string", "string_view")


def names_of(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        InputError: it is none.
        BackendUnavailable: pyarrow is not installed.
    """
    found: list[str] = _schema(path).names
    return found


def holds_paths(path: Path, column: str) -> bool:
    """Whether a column holds paths of pictures, and not pictures.

    Raises:
        InputError: neither.
    """
    kind = _schema(path).field(column).type
    if str(kind) in _TEXT:
        return True
    fields = {each.name: str(each.type) for each in kind} if _is_struct(kind) else {}
    if str(kind) in _BINARY or fields.get("bytes") in _BINARY or fields.get("path") in _TEXT:
        return False
    raise InputError(
        f"{path}: the column {column!r} is {kind}, and no picture: bytes, a path, or a struct of "
        '"bytes" and "path", as the `Image` of Hugging Face datasets is. Name another.'
    )


def looks_like_pictures(path: Path, column: str) -> bool:
    """Whether a column is one of bytes, or of what `datasets` writes of its `Image`."""
    kind = _schema(path).field(column).type
    fields = {each.name: str(each.type) for each in kind} if _is_struct(kind) else {}
    return str(kind) in _BINARY or fields.get("bytes") in _BINARY


def cell_spots(path: Path, column: str) -> Iterator[InParquet]:
    """Where each row's picture lies, in order; nothing but the file's end is read.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            groups = rows_of_groups(file)
    except (OSError, Damaged) as error:
        raise _damaged(path, error) from None
    name = str(path.absolute())  # other processes read it too
    for group, rows in enumerate(groups):
        for row in range(rows):
            yield InParquet(name, column, group, row)


class Cells(Closing):
    """The pictures of one column of a file, best read in order. A context manager."""

    def __init__(self, path: Path, column: str) -> None:
        """Open a file.

        Raises:
            InputError: it cannot be read, or unpacks to too much.
            BackendUnavailable: pyarrow is not installed.
        """
        pyarrow, parquet = _pyarrow(path)
        self._path, self._column, self._errors = path, column, (pyarrow.ArrowException, OSError)
        self._file: IO[bytes] | None = None
        try:
            self._file = path.open("rb")
            size = bytes_of_a_row(self._file, [column], _PAGE)
            self._table = parquet.ParquetFile(self._file, buffer_size=_BUFFER)
        except TooLarge as error:
            self.close()
            raise InputError(f"{path}: {error}. Write it with smaller pages.") from None
        except (*self._errors, Damaged) as error:
            self.close()
            raise _damaged(path, error) from None
        self._rows = max(1, min(_ROWS, _BYTES // size))
        self._group, self._start = -1, 0
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = ()

    def read(self, group: int, row: int) -> bytes | InFile | Broken:
        """The picture of a row: its bytes, or the file that it names.

        Raises:
            InputError: the file is damaged.
        """
        try:
            value = self._value(group, row)
        except self._errors as error:
            raise _damaged(self._path, error) from None
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path") is not None:
                return found_inside(self._path.parent.resolve(), value["path"])
            value = value.get("bytes")
        if value is None:
            return Broken("no picture: null", "null in place of a picture. Remove the row.")
        found: bytes = value
        return too_large(len(found)) if len(found) > BYTES else found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _value(self, group: int, row: int) -> Any:
        if group != self._group or row < self._start:
            read = self._table.iter_batches
            self._batches = iter(read(self._rows, row_groups=[group], columns=[self._column]))
            self._group, self._start, self._batch = group, 0, ()
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            batch = next(self._batches, None)
            if batch is None:
                raise _damaged(self._path, f"row group {group} ends before row {row}")
            self._batch = batch.column(0)
        return self._batch[row - self._start].as_py()


def _schema(path: Path) -> Any:
    pyarrow, parquet = _pyarrow(path)
    try:
        return parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _is_struct(kind: Any) -> bool:
    return str(kind).startswith("struct<")


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs pyarrow: {error}. Install it with {pip_install('parquet')}."
        ) from None
    return pyarrow, parquet


def _damaged(path: Path, error: object) -> InputError:
    return InputError(f"{path} is no Parquet file, or is damaged: {reason_of(error)}.")

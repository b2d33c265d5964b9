"""Lines of text: what ends one, and how they are encoded.

A line ends with LF, CR LF or CR alone, as Python's universal newlines and every text editor have
it, and the last one need not end. U+2028, U+2029, U+0085, VT and FF end none: captions from the web
hold them. Files are UTF-8, or what their byte-order mark says.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from mnemoscope_runtime.errors import InputError

from .records import COLUMNS, Record, Tally, Wanted, alone, checked

__all__ = ["Line", "read_lines", "text"]

LONGEST = 16 * 2**20  # bytes of a line; without an end of line, memory would have none either
_CHUNK = 2**16
_PACKED = (  # how files begin that are often taken for text
    (b"\x1f\x8b", "compressed by gzip"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstandard"),
    (b"PK\x03\x04", "a zip archive (as .xlsx is)"),
    (b"PAR1", "a Parquet file"),
)
_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: From 1.
        text: Without its end; bytes that are not UTF-8 as `surrogateescape` keeps them.
        end: What ended it; nothing for the last line of some files.
    """

    number: int
    text: str
    end: str


def text(file: IO[bytes], name: str, columns: Sequence[Wanted], tally: Tally) -> Iterator[Record]:
    """Every line that is not blank, as a row.

    Raises:
        InputError: a column is asked for, or a line is too long or holds a NUL.
    """
    if columns[0].names != COLUMNS:
        raise InputError(
            f"{name} is text, which has no columns, so there is no {columns[0].names[0]!r}. Leave "
            "--column out, or give a .jsonl, .csv, .tsv or .parquet file."
        )
    for line in read_lines(file, name):
        if not line.text.strip():
            tally.blank += 1
            continue
        tally.separators += len(line.text.splitlines()) > 1
        yield Record(f"line {line.number}", alone(checked(line.text), columns))


def read_lines(file: IO[bytes], name: str) -> Iterator[Line]:
    """The lines of a file.

    Raises:
        InputError: one is too long or holds a NUL, or the file is not in the encoding of its mark.
    """
    number, rest = 0, b""
    for chunk in _utf8(file, name):
        pieces = (rest + chunk).splitlines(keepends=True)  # of bytes: at LF, CR LF and CR alone
        # a CR may be half of an end
        rest = pieces.pop() if pieces and not pieces[-1].endswith(b"\n") else b""
        for piece in pieces:
            number += 1
            yield _line(piece, number, name)
        if len(rest) >= LONGEST:
            raise InputError(
                f"{name}, line {number + 1}: longer than {LONGEST:,} bytes, so it holds no "
                "prompts. Put each prompt on a line of its own."
            )
    if rest:
        yield _line(rest, number + 1, name)


def _line(raw: bytes, number: int, name: str) -> Line:
    if number == 1 and (kind := next((k for m, k in _PACKED if raw.startswith(m)), None)):
        raise InputError(f"{name} is {kind}, not text. Unpack it, or give a file of text.")
    if b"\0" in raw:
        raise InputError(
            f"{name}, line {number}: contains a NUL byte, so it is not a text file (UTF-16 without "
            "a byte-order mark?). Convert it to UTF-8."
        )
    body = raw.rstrip(b"\r\n")
    # strict first: it is several times as fast
    try:
        plain = body.decode()
    except UnicodeDecodeError:
        plain = body.decode("utf-8", "surrogateescape")
    return Line(number, plain, raw[len(body) :].decode())


def _utf8(file: IO[bytes], name: str) -> Iterator[bytes]:
    """What a file holds, in UTF-8 and without a byte-order mark."""
    read = getattr(file, "read1", file.read)  # a pipe's lines as they come
    begun = b""
    while len(begun) < 4 and (more := read(_CHUNK)):
        begun += more
    mark, encoding = next(
        ((mark, encoding) for mark, encoding in _MARKS if begun.startswith(mark)), (b"", "utf-8")
    )
    chunks = _chunks(begun[len(mark) :], read)
    if encoding == "utf-8":
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} begins with the byte-order mark of {encoding.upper()[:-3]} and is not in that "
            f"encoding ({error.reason}). Convert it to UTF-8."
        ) from None


def _chunks(first: bytes, read: object) -> Iterator[bytes]:
    yield first
    assert callable(read)
    yield from iter(lambda: read(_CHUNK), b"")

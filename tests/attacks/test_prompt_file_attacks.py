"""Prompt files of strangers: small ones that unpack to gigabytes, rows without an end."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prompt_support import Save, read
from pyarrow import parquet

from mnemoscope import InputError
from mnemoscope.prompts import Broken, read_rows
from mnemoscope.prompts.parquet import _bytes
from mnemoscope.prompts.thrift import Damaged, Reader

MIB = 2**20
TEXTS = ["a cat", "ein Hund", "x" * 50]


def table(texts: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"prompt": texts, "n": range(len(texts))}), file, **options)
    return file.getvalue()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every batch that is read."""
    found: list[int] = []
    original = parquet.ParquetFile.iter_batches

    def spied(*args: Any, **named: Any) -> Iterator[Any]:
        for batch in original(*args, **named):
            found.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spied)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"dictionary_pagesize_limit": 8 * MIB},
        {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}},
    ],
    ids=["a dictionary", "a common beginning"],
)
def test_a_long_text_in_every_row(options: dict[str, Any], save: Save, sizes: list[int]) -> None:
    content = table(["a" * 4 * MIB] * 12, compression="zstd", **options)
    assert len(content) < 2000
    rows = list(read_rows(save("p.parquet", content), longest=100_000))
    assert len(rows) == 12
    assert all(isinstance(row, Broken) for row in rows)
    assert len(sizes) > 1
    assert max(sizes) <= 33 * MIB


def test_ordinary_rows_are_read_by_the_thousand(save: Save, sizes: list[int]) -> None:
    texts = [f"a cat, number {k}" for k in range(3000)]
    content = table(texts, use_dictionary=False)
    assert read(save("p.parquet", content)) == texts
    assert len(sizes) == 3


def test_a_page_that_unpacks_to_gigabytes(save: Save) -> None:
    content = table(["a" * 33 * MIB], compression="zstd", use_dictionary=False)
    assert len(content) < 5000
    with pytest.raises(InputError, match=r"unpacks to 34,603,0\d\d bytes.*smaller pages"):
        read(save("p.parquet", content))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([date.max], pa.date32()),
        pa.array([2**31 - 1], pa.date32()),
        pa.array([2**62], pa.duration("s")),
        pa.array([b"a"], pa.binary()),
        pa.array([["a"]]),
    ],
    ids=lambda values: str(values.type),
)
def test_other_types(values: Any, save: Save) -> None:
    with pytest.raises(InputError, match=r"'prompt' is .*, not text"):
        read(save("p.parquet", table(values)))


def test_damaged_tables_are_told_so(tmp_path: Path) -> None:
    dice, path = random.Random(0), tmp_path / "p.parquet"
    delta = {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}}
    whole = [
        table(TEXTS),
        table(TEXTS, data_page_version="2.0", compression="zstd"),
        table(TEXTS, **delta),
        table(pa.array(TEXTS).dictionary_encode()),
    ]
    refused = 0
    for _ in range(150):
        content = bytearray(dice.choice(whole))
        for _ in range(dice.choice((1, 2, 4))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        try:
            list(zip(range(1000), read_rows(path), strict=False))
        except InputError:
            refused += 1
    assert refused > 75


def test_a_place_outside_of_the_dictionary() -> None:
    for place in (-1, 3, 2**30):
        places = pa.array([0, None, place], pa.int32())
        with pytest.raises(Damaged, match="not in its dictionary"):
            _bytes(pa, pa.DictionaryArray.from_arrays(places, pa.array(TEXTS), safe=False))
    places = pa.array([2, None, 0], pa.int32())
    found = _bytes(pa, pa.DictionaryArray.from_arrays(places, pa.array(TEXTS)))
    assert found == [TEXTS[2].encode(), None, TEXTS[0].encode()]


ENDLESS = {
    "empty": b"",
    "short": b"\x15",
    "a number": b"\x15" + b"\xff" * 20,
    "nested": b"\x1c" * 50_000,
    "a text": b"\x18\xff\xff\x7f",
    "a list": b"\x19\xf5\xff\xff\x7f",
}


@pytest.mark.parametrize("content", ENDLESS.values(), ids=ENDLESS)
def test_headers_that_end_nowhere(content: bytes) -> None:
    with pytest.raises(Damaged):
        Reader(content).struct()


# text


@pytest.mark.parametrize(
    ("head", "lines", "line"),
    [("", 5, 1), ("prompt\n", 70, 2)],
    ids=["the header", "a row"],
)
def test_a_quoted_row_without_an_end(head: str, lines: int, line: int, save: Save) -> None:
    row = '"' + f"{'a' * (MIB // 4)}\n" * lines
    with pytest.raises(InputError, match=rf"line {line}: the row that begins here has more than"):
        read(save("p.csv", head + row))


def test_blank_lines_before_the_header_are_not_kept(save: Save) -> None:
    path = save("p.csv", "\n" * 50_000 + "prompt\na cat\n")
    tracemalloc.start()
    try:
        assert read(path) == ["a cat"]
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()

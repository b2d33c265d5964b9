"""Pictures in the cells of Parquet files."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from captioned_support import IMAGE, write_table

from mnemoscope import InputError
from mnemoscope.captioned import Broken, cells
from mnemoscope.captioned.cells import Cells, cell_spots, holds_paths, names_of

CONTENT = [b"%d" % k for k in range(100)]


@pytest.mark.parametrize("dictionary", [True, False])
def test_any_order_gives_the_same_cells(tmp_path: Path, dictionary: bool) -> None:
    path = write_table(
        tmp_path / "p.parquet",
        {"image": pa.array(CONTENT)},
        row_group_size=70,
        use_dictionary=dictionary,
    )
    spots = list(cell_spots(path, "image"))
    assert [(spot.group, spot.row) for spot in spots] == [
        *((0, row) for row in range(70)),
        *((1, row) for row in range(30)),
    ]
    order = list(range(100)) + random.Random(0).sample(range(100), 40)
    with Cells(path, "image") as opened:
        assert [opened.read(spots[k].group, spots[k].row) for k in order] == [
            CONTENT[k] for k in order
        ]


def test_cells_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "p.parquet", {"image": pa.array(CONTENT)}, use_dictionary=False)
    monkeypatch.setattr(cells, "_BYTES", 100)
    with Cells(path, "image") as opened:
        assert opened.read(0, 99) == b"99"
        assert len(opened._batch) == 4  # the last of batches of 16: 100 // (4 + 2) bytes


def test_large_pictures_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "p.parquet", {"image": pa.array([b"x" * 50, b"x" * 51])})
    monkeypatch.setattr(cells, "BYTES", 50)
    with Cells(path, "image") as opened:
        assert opened.read(0, 0) == b"x" * 50
        found = opened.read(0, 1)
        assert isinstance(found, Broken)
        assert found.reason == "its picture is too large"


def test_a_page_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(
        tmp_path / "p.parquet",
        {"image": pa.array([b"x" * 2**20])},
        compression="zstd",
        use_dictionary=False,
    )
    assert path.stat().st_size < 2**12
    monkeypatch.setattr(cells, "_PAGE", 2**19)
    with pytest.raises(InputError, match=r"unpacks to 1,048,\d+ bytes.*smaller pages"):
        Cells(path, "image")


def test_kinds_of_columns(tmp_path: Path) -> None:
    columns = {
        "bytes": pa.array([b""]),
        "hf": pa.array([{"bytes": b"", "path": ""}], IMAGE),
        "path": pa.array([""]),
        "number": pa.array([1]),
        "several": pa.array([[b""]]),
        "other": pa.array([{"width": 1}]),
    }
    path = write_table(tmp_path / "p.parquet", columns)
    assert names_of(path) == list(columns)
    assert [holds_paths(path, name) for name in ("bytes", "hf", "path")] == [False, False, True]
    for name in ("number", "several", "other"):
        with pytest.raises(InputError, match=rf"'{name}' is .*and no picture"):
            holds_paths(path, name)


def test_damaged_files_are_told_so(tmp_path: Path) -> None:
    dice, path = random.Random(0), tmp_path / "p.parquet"
    column = pa.array([{"bytes": each, "path": "x"} for each in CONTENT], IMAGE)
    whole = [
        write_table(path, {"image": column}, compression=kind).read_bytes()
        for kind in ("none", "zstd")
    ]
    refused = 0
    for _ in range(100):
        content = bytearray(dice.choice(whole))
        for _ in range(dice.choice((1, 2, 4))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        try:
            spots = [spot for spot, _ in zip(cell_spots(path, "image"), range(200), strict=False)]
            with Cells(path, "image") as opened:
                for spot in spots:
                    opened.read(spot.group, spot.row)
        except InputError:
            refused += 1
    assert refused > 20
    path.write_bytes(b"PAR1" * 4)
    for broken in (lambda: names_of(path), lambda: list(cell_spots(path, "image"))):
        with pytest.raises(InputError, match=r"no Parquet file, or is damaged: .*[^.]\.$"):
            broken()

"""Columns that look like pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from captioned_support import IMAGE, picture, write_table

from mnemoscope.captioned import picture_column


def test_columns_of_parquet(tmp_path: Path) -> None:
    cells = pyarrow.array([{"bytes": picture("red"), "path": None}], IMAGE)
    path = write_table(tmp_path / "a.parquet", {"text": ["a.png"], "photo": cells})
    assert picture_column(path) == "photo"
    path = write_table(tmp_path / "b.parquet", {"text": ["a"], "raw": [picture("red")]})
    assert picture_column(path) == "raw"
    path = write_table(tmp_path / "c.parquet", {"path": ["docs/x.txt"], "img": ["a/b.JPG"]})
    assert picture_column(path) == "img"
    path = write_table(tmp_path / "d.parquet", {"text": ["a.png"], "size": [3]})
    assert picture_column(path) is None


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"text": "a", "file_name": "a.webp"}, "file_name"),
        ({"text": "a", "image": "https://example.org/a.png"}, "image"),
        ({"text": "a", "image": "none"}, None),
        ({"text": "a.png"}, None),
    ],
)
def test_columns_of_text_tables(tmp_path: Path, columns: dict[str, str], found: str | None) -> None:
    csv, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text(f"{','.join(columns)}\n{','.join(columns.values())}\n")
    lines.write_text(json.dumps(columns) + "\n")
    assert picture_column(csv) == picture_column(lines) == found
    assert picture_column(lines, quotes=False) == found


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a.png\n")
    (tmp_path / "a.jsonl").write_text('"a.png"\n')
    (tmp_path / "b.jsonl").write_text("")
    for name in ("a.txt", "a.jsonl", "b.jsonl", "none.csv", "."):
        assert picture_column(tmp_path / name) is None

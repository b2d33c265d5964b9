from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_support import rows

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.audit import table
from mnemoscope.prompts import read_prompt_file
from mnemoscope.tables import check_table

ENDINGS = [".jsonl", ".csv", ".parquet"]
HOSTILE = ["<script>", "a\r\nb", 'q"u,o;t\te', "\x1b[31m", "\x01\x7f", "=1+1", "\u2028\ufeff", "𝒳é"]
ROWS: list[table.Row] = [
    *((prompt, 1 / 3, 0.01, True, 1, False, None, None) for prompt in HOSTILE),
    ("b", 1e-17, 1.0, False, None, True, "It is long.", None),
    ("", None, None, None, None, None, None, "empty"),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_round_trip(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"r{ending}"
    table.write(path, ROWS)
    assert rows(path) == [dict(zip(table.COLUMNS, row, strict=True)) for row in ROWS]
    assert list(tmp_path.iterdir()) == [path]
    first = path.read_bytes()
    table.write(path, ROWS)
    assert path.read_bytes() == first


@pytest.mark.parametrize("ending", ENDINGS)
def test_results_can_be_read_as_prompts_again(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"r{ending}"
    table.write(path, ROWS)
    assert list(read_prompt_file(path)) == [row[0] for row in ROWS]  # ends of lines, too


def test_parquet_of_more_rows_than_are_held_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    table.write(path, (ROWS[0] for _ in range(10_001)))
    assert len(rows(path)) == 10_001


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_leaves_what_was_there(tmp_path: Path, ending: str) -> None:
    def failing() -> Iterator[table.Row]:
        yield ROWS[0]
        raise InputError("no more")

    path = tmp_path / f"r{ending}"
    path.write_text("before")
    with pytest.raises(InputError, match="no more"):
        table.write(path, failing())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_where_nothing_can_be_written(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        table.write(tmp_path / "none" / f"r{ending}", ROWS)
    (tmp_path / f"r{ending}").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        table.write(tmp_path / f"r{ending}", ROWS)


@pytest.mark.parametrize("name", ["r.tsv", "r", "r.xlsx"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"ends in one of: \.jsonl, \.csv, \.parquet"):
        check_table(Path(name))
    check_table(Path("r.CSV"))


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[parquet\]"):
        check_table(Path("r.parquet"))

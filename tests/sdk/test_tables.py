"""Tables of any columns; what they hold and where they go wrong is tested with an audit's."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_support import rows

from mnemoscope.tables import write_table

COLUMNS = {"row": int, "error": str, "kept": bool, "cosine": float}


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_columns_of_every_kind(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    given = [(0, "a", True, None), (1, None, False, 0.5)]
    write_table(path, COLUMNS, given, "")
    assert [tuple(row.values()) for row in rows(path)] == given
    assert [list(row) for row in rows(path)] == [list(COLUMNS)] * 2


def test_a_row_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer"):
        write_table(tmp_path / "a.jsonl", COLUMNS, [(0, "a", True, None, 1)], "")
    assert not list(tmp_path.iterdir())

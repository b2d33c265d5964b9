"""One row of results for each prompt of an audit, as JSON lines, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

from ..tables import Columns, write_table

__all__ = ["COLUMNS", "PICTURE_COLUMNS", "PLACE_COLUMNS", "REMEDY", "Row", "write"]

COLUMNS: Columns = MappingProxyType(
    {
        **{"prompt": str, "score": float, "p_value": float, "flagged": bool, "group": int},
        **{"truncated": bool, "notes": str, "error": str},
    }
)
PLACE_COLUMNS: Columns = MappingProxyType(  # behind those, of captioned pictures
    {"row": int, "file": str, "name": str}
)
PICTURE_COLUMNS: Columns = MappingProxyType(  # behind those, where captions were drawn
    {
        **{"finding": str, "similarity": float, "copies": int, "nearest": int},
        **{"nearest_similarity": float, "image_times": int, "caption_times": int},
        **{"image_error": str},
    }
)
# what cannot be screened has an error and None for the rest: it is not "not flagged"
Row = tuple[str | float | bool | int | None, ...]
REMEDY = "Make room or choose another file. The same command goes on where this one stopped."


def write(path: Path, rows: Iterable[Row], columns: Columns = COLUMNS) -> None:
    """Write results; the file appears whole or not at all.

    Args:
        path: The file.
        rows: A value for each column; None for what is not there.
        columns: `COLUMNS`, or with `PLACE_COLUMNS` and `PICTURE_COLUMNS` behind them.

    Raises:
        InputError: it cannot be written.
    """
    write_table(path, columns, rows, REMEDY)

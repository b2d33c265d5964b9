"""Code and tables of the pages in docs."""

from __future__ import annotations

import re
from typing import Any

from repository import ROOT

__all__ = ["code", "named_in_table", "run_code"]


def code(page: str, containing: str) -> str:
    """The one block of Python in a page that holds these words."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    [found] = [
        each for each in re.findall(r"```python\n(.*?)```", text, re.S) if containing in each
    ]
    return found


def run_code(page: str, containing: str) -> dict[str, Any]:
    """What the names of such a block are after it ran."""
    names: dict[str, Any] = {"__name__": page}
    exec(compile(code(page, containing), page, "exec", dont_inherit=True), names)
    return names


def named_in_table(page: str) -> set[str]:
    """What stands in backquotes in the first cells of a page's tables."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}

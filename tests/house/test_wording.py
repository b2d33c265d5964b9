"""What programs say: one step and two steps, and never "step(s)"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from repository import ROOT

ROOMS = ("runtime", "export", "sdk", "integrations", "examples", "recipes", "benchmarks")


def evasive(source: str) -> Iterator[str]:
    """Texts that leave it to who reads them how many there are."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+\((?:s|es)\)", node.value)


@pytest.mark.parametrize("room", ROOMS)
def test_things_are_counted(room: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): list(evasive(path.read_text("utf-8")))
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert found
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_what_is_not_counted_is_seen() -> None:
    source = """f(s); a = f"{n} step(s)"; b = "two boxes, " "3 box(es)" """
    assert set(evasive(source)) == {"step(s)", "box(es)"}

"""What the tests of prompt files share."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnemoscope.prompts import read_prompt_file

Save = Callable[[str, bytes | str], Path]

PROMPTS = ["a cat, sitting", 'the "big" one', "eine Katze — 猫 😀", " spaced  out ", "tab\tbed"]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return save


def read(path: str | Path, column: str | None = None) -> list[str]:
    return list(read_prompt_file(path, column=column))


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

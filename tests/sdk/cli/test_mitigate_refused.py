"""What `mnemoscope mitigate` refuses before it loads anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from cli_support import Run, failed, shell

pytestmark = pytest.mark.slow


def test_places_that_cannot_be_written_are_refused_at_once(run: Run, tmp_path: Path) -> None:
    here = tmp_path / "a.png"
    here.write_text("mine")
    for args, words in (
        (("a cat", "-o", tmp_path / "a.unknown"), [".png", "not a.unknown"]),
        (("a cat", "-o", tmp_path / "no" / "a.png"), ["there is no folder"]),
        (("a cat", "-o", tmp_path), ["is a folder"]),
        (("--compare", "-o", here), ["is a file", "writes a folder"]),
    ):
        failed(
            run("mitigate", "--model", "none", "--clip", "c", "--descriptor", "d", *args), 2, *words
        )
    assert here.read_text() == "mine"


def test_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    result = shell("mitigate", "a cat", "-o", tmp_path / "a.png", PYTHONPATH=_first(tmp_path))
    failed(result, 3, "pip install -c constraints.txt '.[torch]'")


def _first(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


def test_no_other_format(run: Run) -> None:
    result = run("mitigate", "a cat", "-o", "x.png", "--format", "csv")
    assert result.code == 2
    assert "'csv' is not one of" in result.err

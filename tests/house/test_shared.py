from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shared import Make, key, made_once


def writes(text: str, calls: list[str]) -> Make:
    def make(folder: Path) -> None:
        calls.append(text)
        folder.mkdir()
        (folder / "file").write_text(text)

    return make


def test_many_ask_and_one_makes(tmp_path: Path) -> None:
    calls: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        wanted = [pool.submit(made_once, tmp_path, "a/b", writes("x", calls)) for _ in range(8)]
        found = {each.result() for each in wanted}
    assert calls == ["x"]
    assert [(folder / "file").read_text() for folder in found] == ["x"]


def test_what_failed_half_way_is_made_again(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        made_once(tmp_path, "a", broken)
    folder = made_once(tmp_path, "a", writes("x", []))
    assert [each.name for each in folder.iterdir()] == ["file"]


def test_other_sources_or_tools_have_another_key(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    first = key([file], ["torch 1"])
    assert key([file], ["torch 1"]) == first
    assert key([file], ["torch 2"]) != first
    file.write_text("2")
    assert key([file], ["torch 1"]) != first

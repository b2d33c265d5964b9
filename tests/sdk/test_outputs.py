from __future__ import annotations

from pathlib import Path

import pytest

from mnemoscope import InputError
from mnemoscope.outputs import require_folder, require_place, write_files


def test_what_is_tried_is_left_as_it_is(tmp_path: Path) -> None:
    there, new = tmp_path / "there.csv", tmp_path / "new.csv"
    there.write_text("old")
    for path in (there, new):
        require_place(path, "--output", ".csv")
    require_folder(tmp_path / "a" / "b", "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert there.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/r.csv", "there is no folder"),
        ("folder", "is a folder. Name a file in it"),
        ("r.txt", r"writes \.csv, \.jsonl, not r\.txt"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=words):
        require_place(tmp_path / name, "--output", ".csv", ".jsonl")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Nothing was measured"):
        require_folder(tmp_path / "file" / "folder", "--output")


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    files = write_files(folder, {"a.txt": b"a", "b.bin": b"\x00"})
    assert files == [folder / "a.txt", folder / "b.bin"]
    assert [file.read_bytes() for file in files] == [b"a", b"\x00"]
    with pytest.raises(InputError, match=r"a\.txt cannot be written: .*--output"):
        write_files(folder / "a.txt", {"c.txt": b""})

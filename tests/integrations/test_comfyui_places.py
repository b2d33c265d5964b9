"""Files by names that come from a graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from integrations.comfyui.places import found, place
from mnemoscope import InputError


def test_names_are_looked_for_in_a_folder_and_full_paths_are_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert found("a.txt", tmp_path, "a file") == tmp_path / "a.txt"
    assert found(f'"{tmp_path / "a.txt"}"', Path("nowhere"), "a file") == tmp_path / "a.txt"


@pytest.mark.parametrize("name", ["", "  ", "b.txt", '""'])
def test_what_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Name a file: a full path, or a name in"):
        found(name, tmp_path, "a file")


@pytest.mark.parametrize("name", ["mine", "mine.json", " mine.json "])
def test_calibrations_are_written_to_their_folder(tmp_path: Path, name: str) -> None:
    assert place(name, tmp_path) == tmp_path / "mine.json"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a.json", "a/b.json", "/etc/a.json", "a\\b", "c:a", ".hidden"]
)
def test_paths_out_of_it_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no plain name"):
        place(name, tmp_path)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.json").touch()
    with pytest.raises(InputError, match="is not written over"):
        place("mine", tmp_path)

"""Paths that a data set names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mnemoscope.captioned import Broken
from mnemoscope.captioned.paths import found_inside, is_picture
from mnemoscope.captioned.spots import InFile

OUTSIDE, MISSING = "its picture is outside of the folder", "its picture does not exist"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "below").mkdir(parents=True)
    for path in (folder / "a.png", folder / "below" / "b.png", tmp_path / "secret.png"):
        path.write_bytes(b"")
    (folder / "inner.png").symlink_to(folder / "below" / "b.png")
    (folder / "outer.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (folder / "round.png").symlink_to(folder / "round.png")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize("name", ["a.png", "below/b.png", "./a.png", "inner.png"])
def test_files_of_the_folder(root: Path, name: str) -> None:
    assert found_inside(root, name) == InFile(str(root), name)


def test_a_whole_path_that_lies_there(root: Path) -> None:
    assert found_inside(root, str(root / "inner.png")) == InFile(str(root), "below/b.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", OUTSIDE),
        ("below/../a.png", OUTSIDE),
        ("/etc/passwd", OUTSIDE),
        ("/no/such.png", OUTSIDE),
        ("outer.png", OUTSIDE),
        ("up/secret.png", OUTSIDE),
        ("round.png", MISSING),
        ("pipe.png", MISSING),
        ("below", MISSING),
        ("", MISSING),
        ("no.png", MISSING),
        ("a\0.png", MISSING),
        ("x" * 5000, MISSING),
        ("https://example.org/a.png", MISSING),
        ("\ud800.png", MISSING),
    ],
)
def test_others(root: Path, name: str, reason: str) -> None:
    found = found_inside(root, name)
    assert isinstance(found, Broken)
    assert found.reason == reason
    assert len(found.detail) < 500


def test_what_ends_like_a_picture() -> None:
    assert is_picture("a.JPG")
    assert not is_picture("a.png.txt")

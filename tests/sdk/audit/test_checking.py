"""What an audit refuses before it loads anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from captioned_support import picture, write_table
from confirming_support import put

from mnemoscope import InputError
from mnemoscope.audit.checking import check_audit
from mnemoscope.captioned.folders import Folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of pictures, lists and a table."""
    put(tmp_path / "set", a=("a caption", "red"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.csv").write_text("prompt,other\na,b\n")
    (tmp_path / "p.txt").write_text("a\n")
    write_table(tmp_path / "p.parquet", {"text": ["a"], "image": [picture("red")]})
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("none.csv", {}, "none.csv cannot be read"),
        ("none", {"confirms": True}, "has no pictures to compare with"),
        ("p.csv", {"column": "caption"}, "no column caption"),
        ("p.csv", {"images": "nofolder"}, "nofolder is no folder either"),
        ("p.parquet", {"images": "nofolder"}, "neither a folder nor a column"),
        ("p.parquet", {"images": "image", "column": "caption"}, "no column caption"),
        ("set", {"images": "image"}, "leave --images out"),
        ("empty", {}, "no metadata"),
        ("p.txt", {"confirms": True}, r"--images\).* or leave confirming out"),
        ("p.txt", {"duplicates_to": "d.csv"}, r"--images\).* or leave --duplicates out"),
        ("set", {"duplicates_to": "d.csv"}, "--confirm-at-most 0 --confirm-unflagged 0"),
        ("set", {"duplicates_to": "d.txt", "confirms": True}, "ends in one of"),
        ("set", {"report_to": "none/r.html"}, "none"),
        ("set", {"report_to": "r.csv"}, "Name different"),
    ],
)
def test_refused(data: Path, name: str, options: dict[str, Any], words: str) -> None:
    for key in ("report_to", "duplicates_to"):
        if key in options:
            options = {**options, key: data / options[key]}
    with pytest.raises(InputError, match=words):
        check_audit(data / name, data / "r.csv", **options)


def test_places_of_results(data: Path) -> None:
    for output in ("r.xlsx", "none/r.csv", "p.txt"):
        with pytest.raises(InputError):
            check_audit(data / "p.txt", data / output)


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes")
def test_a_pipe_is_not_read(data: Path) -> None:
    os.mkfifo(data / "pipe.csv")
    with pytest.raises(InputError, match="save the prompts"):
        check_audit(data / "pipe.csv", data / "r.csv")


def test_what_can_be_audited(data: Path) -> None:
    assert check_audit(data / "p.csv", data / "r.csv") is None
    assert check_audit(data / "set", data / "r.csv", confirms=True) == Folder(data / "set")
    listed = {"confirms": True, "images": "image", "duplicates_to": data / "d.csv"}
    found = check_audit(data / "p.parquet", data / "r.csv", **listed)
    assert found is not None
    assert found.path == data / "p.parquet"
    assert sorted(path.name for path in data.iterdir()) == [  # and nothing is written
        *("empty", "p.csv", "p.parquet", "p.txt", "set"),
    ]

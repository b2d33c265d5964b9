"""Folders of pictures: text files beside them, and metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from captioned_support import BLUE, LIME, RED, picture, shown, write_table

from mnemoscope import InputError
from mnemoscope.captioned import Captioned
from mnemoscope.captioned.folders import Folder


def put(folder: Path, **files: str) -> None:
    """Pictures of these colours, each with a text file that names the colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in files.items():
        (folder / f"{name}.png").write_bytes(picture(colour))
        (folder / f"{name}.txt").write_text(f" a {colour} one\n")


def test_text_files_beside_pictures_in_the_order_of_names(tmp_path: Path) -> None:
    put(tmp_path, b="red", a="lime")
    put(tmp_path / "more" / "below", c="blue")
    (tmp_path / "README.txt").write_text("of no picture")
    assert shown(Folder(tmp_path)) == [
        ("a lime one", LIME),
        ("a red one", RED),
        ("a blue one", BLUE),
    ]


def test_a_picture_without_a_caption_is_a_row(tmp_path: Path) -> None:
    put(tmp_path, a="red", b="lime")
    (tmp_path / "a.txt").unlink()
    (missing, _), whole = shown(Folder(tmp_path))
    assert "no text file beside the picture" in missing
    assert whole == ("a lime one", LIME)


ROWS = [
    {"file_name": "b.png", "caption": "the red"},
    {"file_name": "below/c.png", "caption": "the blue"},
    {"file_name": "../x.png", "caption": "outside"},
    {"file_name": "no.png", "caption": "missing"},
]


def write_metadata(folder: Path, kind: str) -> None:
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == "csv":
        rows = [",".join(row.values()) for row in ROWS]
        path.write_text("\n".join(["file_name,caption", *rows]))
    else:
        write_table(path, {key: [row[key] for row in ROWS] for key in ROWS[0]})


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_names_pictures_and_those_below(tmp_path: Path, kind: str) -> None:
    put(tmp_path, b="red", a="lime")
    put(tmp_path / "below", c="blue")
    write_metadata(tmp_path, kind)
    assert shown(Folder(tmp_path)) == [
        ("the red", RED),
        ("the blue", BLUE),
        ("outside", "its picture is outside of the folder"),
        ("missing", "its picture does not exist"),
    ]
    assert Folder(tmp_path).unlisted() == [tmp_path / "a.png"]


def test_metadata_of_a_folder_below_is_relative_to_it(tmp_path: Path) -> None:
    put(tmp_path, a="lime")
    put(tmp_path / "train", b="red")
    put(tmp_path / "train" / "below", c="blue")
    (tmp_path / "other").mkdir()
    write_metadata(tmp_path / "train", "jsonl")
    found = shown(Folder(tmp_path))
    assert found[:3] == [("a lime one", LIME), ("the red", RED), ("the blue", BLUE)]
    assert Folder(tmp_path).unlisted() == []


def test_an_empty_folder_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InputError, match=r"no pictures \(\.jpg.*no metadata.*no tar or Parquet"):
        list(Folder(tmp_path).rows())


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    put(tmp_path, **dict.fromkeys("abcde", "red"))
    write_metadata(tmp_path, "jsonl")
    (tmp_path / "link").symlink_to(tmp_path.parent, target_is_directory=True)
    told: list[str] = []
    rows = list(Folder(tmp_path).rows(told.append))
    assert len(rows) == 4
    assert "link is a link to a folder" in told[0]
    assert told[-1].endswith("5 pictures and metadata for 4: 1 or more are not read.")


def test_two_kinds_of_metadata(tmp_path: Path) -> None:
    put(tmp_path, a="red")
    write_metadata(tmp_path, "jsonl")
    write_metadata(tmp_path, "csv")
    with pytest.raises(InputError, match=r"metadata\.jsonl and metadata\.csv.*Keep one"):
        list(Folder(tmp_path).rows())


def test_the_column_of_captions(tmp_path: Path) -> None:
    put(tmp_path, a="red")
    row = {"file_name": "a.png", "text": "one", "alt": "another"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert shown(Folder(tmp_path)) == [("one", RED)]
    assert shown(Folder(tmp_path, "alt")) == [("another", RED)]
    (found,) = Folder(tmp_path, "alt").rows()
    assert isinstance(found, Captioned)
    assert found.where == f"{tmp_path / 'metadata.jsonl'}, line 1"


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(Folder(tmp_path / "missing").rows())

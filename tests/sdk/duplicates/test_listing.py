"""The list, and training data read by it."""

from __future__ import annotations

import csv
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioned_support import IMAGE, picture, write_table, write_tar
from pyarrow import parquet

from mnemoscope import InputError
from mnemoscope.captioned import open_captioned
from mnemoscope.duplicates import Repeats, find_repeats, write_list
from mnemoscope.training import read_folder

VECTORS = np.eye(3, dtype=np.float32)[[0, 1, 0, 2, 1]]
KEPT = [0, 1, 3]


def repeats(count: int = 5) -> Repeats:
    captions = [f"caption {n}" for n in range(count)]
    return find_repeats(VECTORS[:count], np.arange(count), captions, pictures_alike=0.9)


def folder(path: Path) -> Path:
    for n in range(5):
        place = path / "deep" if n > 2 else path
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n}, é.png").write_bytes(picture("red"))
        (place / f"{n}, é.txt").write_text(f"caption {n}")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """A list as training reads it, with nothing of ours."""
    if path.suffix == ".parquet":
        return list(parquet.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    texts = ("file", "name", "image_error")
    return [
        {k: v or None if k in texts else json.loads(v.lower() or "null") for k, v in row.items()}
        for row in found
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_training_reads_what_is_kept(tmp_path: Path, ending: str) -> None:
    data, path = folder(tmp_path / "data"), tmp_path / f"list{ending}"
    write_list(path, open_captioned(data), repeats())
    listed = read(path)
    assert [row["keep"] for row in listed] == [True, True, False, True, False]
    assert [row["same_as"] for row in listed] == [None, None, 1, None, 2]
    assert [row["similarity"] for row in listed] == [None, None, 1.0, None, 1.0]
    assert [row["picture_times"] for row in listed] == [2, 2, 2, 1, 2]
    dropped = {row["name"] for row in listed if row["keep"] is False}
    root = data.resolve()
    pictures = [
        each
        for each in read_folder(data)
        if each.file.resolve().relative_to(root).as_posix() not in dropped
    ]
    assert [each.caption for each in pictures] == [f"caption {n}" for n in KEPT]


@pytest.mark.parametrize("given", ["0.tar", "./0.tar", "{0..0}.tar", "."])
def test_keys_of_webdataset(tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = {}
    for n in range(5):
        members |= {f"a/{n}.png": picture("red"), f"a/{n}.txt": b"caption %d" % n}
    tar = write_tar(tmp_path / "0.tar", members)
    write_list(tmp_path / "list.jsonl", open_captioned(given), repeats())
    listed = read(tmp_path / "list.jsonl")
    assert {row["file"] for row in listed} == {str(tar)}
    dropped = {row["name"] for row in listed if row["keep"] is False}
    with tarfile.open(tar) as opened:  # the key of a sample is its name up to the first dot
        keys = {name.partition(".")[0] for name in opened.getnames()}
    assert sorted(keys - dropped) == [f"a/{n}" for n in KEPT]


def test_rows_of_a_parquet_file(tmp_path: Path) -> None:
    import pyarrow

    cells = pyarrow.array([{"bytes": picture("red"), "path": None}] * 5, IMAGE)
    table = write_table(tmp_path / "a.parquet", {"text": list("abcde"), "image": cells})
    captioned = open_captioned(table, images="image", column="text")
    write_list(tmp_path / "list.jsonl", captioned, repeats())
    listed = read(tmp_path / "list.jsonl")
    taken = [row["row"] - 1 for row in listed if row["keep"] is not False]
    assert parquet.read_table(table).take(taken)["text"].to_pylist() == ["a", "b", "d"]


def test_a_picture_that_cannot_be_read_is_neither_kept_nor_dropped(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    captions = [None, *map(str, range(4))]
    found = find_repeats(VECTORS[1:], np.arange(1, 5), captions, pictures_alike=0.9)
    errors = {0: "its picture is cut short"}
    write_list(tmp_path / "list.csv", open_captioned(data), found, errors=errors)
    assert read(tmp_path / "list.csv")[0] == {
        **{"row": 1, "file": None, "name": "0, é.png", "keep": None, "same_as": None},
        **{"similarity": None, "picture_times": None, "caption_times": None},
        "image_error": "its picture is cut short",
    }


def test_a_picture_that_is_not_there_keeps_the_name_that_was_given(tmp_path: Path) -> None:
    table, listed = tmp_path / "a.jsonl", tmp_path / "list.jsonl"
    names = ["gone.png", "../up.png", None]
    cells = [{"text": "a", "image": name} for name in names]
    table.write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    captioned = open_captioned(table, images="image")
    none = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    found = find_repeats(*none, ["a"] * 3, pictures_alike=0.9)
    write_list(listed, captioned, found)
    assert [row["name"] for row in read(listed)] == names
    reasons = [row["image_error"] for row in read(listed)]
    assert reasons[:2] == ["its picture does not exist", "its picture is outside of the folder"]
    assert reasons[2] is not None
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "metadata.jsonl").write_text(
        table.read_text().replace('"image"', '"file_name"')
    )
    write_list(listed, open_captioned(data), found)
    assert [row["name"] for row in read(listed)] == ["sub/gone.png", "sub/../up.png", None]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_name_that_is_no_text_is_spelled_out(tmp_path: Path, ending: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for kind, content in ((".png", picture("red")), (".txt", b"a caption")):
        Path(os.fsdecode(os.fsencode(data) + b"/caf\xe9" + kind.encode())).write_bytes(content)
    found = find_repeats(VECTORS[:1], np.arange(1), ["a caption"], pictures_alike=0.9)
    write_list(tmp_path / f"list{ending}", open_captioned(data), found)
    assert [row["name"] for row in read(tmp_path / f"list{ending}")] == ["caf\\udce9.png"]


@pytest.mark.parametrize("count", [3, 4])
def test_a_set_that_was_changed(tmp_path: Path, count: int) -> None:
    data = folder(tmp_path / "data")
    with pytest.raises(InputError, match="changed"):
        write_list(tmp_path / "list.csv", open_captioned(data), repeats(count))
    (data / "0, é.png").unlink()
    with pytest.raises(InputError, match="changed"):
        write_list(tmp_path / "list.csv", open_captioned(data), repeats())
    assert not (tmp_path / "list.csv").exists()

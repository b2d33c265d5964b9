"""Folders of pictures with captions, good and bad."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from mnemoscope import InputError
from mnemoscope.training import CaptionedPicture, Pictures, read_folder


def draw(path: Path, colour: str = "red", size: tuple[int, int] = (40, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def describe(folder: Path, *rows: object) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


def test_text_files_beside_pictures(tmp_path: Path) -> None:
    cat, dog = draw(tmp_path / "cat.JPG"), draw(tmp_path / "more" / "dog.png")
    cat.with_suffix(".txt").write_text("  a cat, été\n", "utf-8")
    dog.with_suffix(".txt").write_text("a dog")
    (tmp_path / "README.txt").write_text("of no picture")
    assert read_folder(tmp_path) == [
        CaptionedPicture(cat, "a cat, été"),
        CaptionedPicture(dog, "a dog"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_of_unicode_end_no_line_of_metadata(tmp_path: Path, end: str) -> None:
    captions = ["one\u2028line", "another\x85one"]
    rows = [
        {"file_name": draw(tmp_path / f"{i}.png").name, "text": caption}
        for i, caption in enumerate(captions)
    ]
    text = end.join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_bytes(text.encode())
    assert [row.caption for row in read_folder(tmp_path)] == captions


@pytest.mark.parametrize("column", ["text", "caption"])
def test_metadata(tmp_path: Path, column: str) -> None:
    files = [draw(tmp_path / name) for name in ("a.png", "b/c.png")]
    describe(
        tmp_path,
        {"file_name": "b/c.png", column: "second", "licence": 1},
        {"file_name": "a.png", column: "first"},
    )
    rows = read_folder(tmp_path, caption_column=column)
    assert rows == [CaptionedPicture(files[0], "first"), CaptionedPicture(files[1], "second")]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_folder(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("no pictures")
    with pytest.raises(InputError, match="holds no pictures"):
        read_folder(tmp_path)
    draw(tmp_path / "a.png").with_suffix(".txt").write_text("has one")
    draw(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: a picture without a caption.* Write b\.txt"):
        read_folder(tmp_path)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.png: not UTF-8"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file_name": "a.png"}], r"line 1: no column text, only file_name"),
        ([{"text": "x"}], r"line 1: no column file_name"),
        ([{"file_name": "a.png", "text": 3}], "line 1: the prompt is 3, not text"),
        (["a.png"], "line 1: text, which has no columns"),
        ([{"file_name": "/etc/passwd", "text": "x"}], "is outside of .* inside of the folder"),
        ([{"file_name": "../a.png", "text": "x"}], "is outside of .* inside of the folder"),
        ([{"file_name": "z.png", "text": "x"}], "does not exist in"),
        ([{"file_name": "a.png", "text": "x"}] * 2, "line 2 names .*a.png again"),
        ([{"file_name": "a.png", "text": "x"}], r"b\.png, of 1 such .*is not in the metadata"),
    ],
)
def test_bad_metadata(tmp_path: Path, rows: list[object], message: str) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    describe(tmp_path, *rows)
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path)


def test_pictures_are_squares(tmp_path: Path) -> None:
    wide = Image.new("RGB", (60, 20), "black")
    wide.paste(Image.new("RGB", (10, 20), "white"), (20, 0))  # left in the middle square
    wide.save(tmp_path / "wide.png")
    rows = [CaptionedPicture(tmp_path / "wide.png", "wide")]
    example = Pictures(rows, 8)[0]
    assert (example["caption"], example["id"]) == ("wide", 0)
    pixels = example["pixels"]
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == torch.float32
    assert (pixels[:, :, 0] > 0.7).all()
    assert (pixels[:, :, -1] < -0.7).all()
    mirrored = [Pictures(rows, 8, mirror=random.Random(s))[0]["pixels"] for s in range(8)]
    assert {bool((each[:, :, 0] > 0.7).all()) for each in mirrored} == {True, False}


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "a.txt").write_text("a caption")
    pictures = Pictures(read_folder(tmp_path), 8)
    assert len(pictures) == 1
    with pytest.raises(InputError, match=r"a\.png: no picture of a kind that is known"):
        pictures[0]

"""Tar files of WebDataset's kind."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from captioned_support import BLUE, LIME, RED, picture, shown, write_tar

from mnemoscope import InputError
from mnemoscope.captioned.tars import Tars

NO_PICTURE = "its picture is no JPEG, PNG, WebP or BMP"


def read(path: Path, column: str | None = None) -> list[tuple[str, object]]:
    return list(shown(Tars(path, (path,), column)))


def test_samples_are_members_of_one_name(tmp_path: Path) -> None:
    members = {
        "0001.jpg": picture("red", kind="JPEG"),
        "0001.txt": b"red\n",
        "0001.json": b'{"caption": "not read", "alt": "one"}',
        "./sub/0002.seg.png": picture("lime"),  # up to the first dot: another ending
        "./sub/0002.PNG": picture("lime"),
        "./sub/0002.json": json.dumps({"caption": "lime", "alt": "two"}, indent=1).encode(),
        "sub/0002.webp": picture("blue", kind="WEBP"),
        "sub/0002.txt": "bläu".encode(),
    }
    path = write_tar(tmp_path / "a.tar", members)
    (red, colour), *rest = read(path)
    assert red == "red"
    assert isinstance(colour, tuple)
    assert abs(colour[0] - 255) < 3  # JPEG
    assert [caption for caption, _ in rest] == ["lime", "bläu"]
    assert rest[0][1] == LIME
    assert [caption for caption, _ in read(path, "alt")] == ["one", "two", "no caption"]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    files = []
    for k, colour in enumerate(("red", "blue")):
        members = {"x.png": picture(colour), "x.txt": colour.encode()}
        files.append(write_tar(tmp_path / f"{k}.tar", members))
    assert shown(Tars(tmp_path, tuple(files))) == [("red", RED), ("blue", BLUE)]


@pytest.mark.parametrize(
    ("members", "row"),
    [
        ({"a.png": picture("red")}, ("no caption", RED)),
        ({"a.txt": b"x"}, ("x", "no picture")),
        (
            {"a.png": b"no picture", "a.txt": b"x"},
            ("x", NO_PICTURE),
        ),
        (
            {"a.png": picture("red"), "a.jpg": b"", "a.txt": b"x"},
            ("x", "more than one picture"),
        ),
        ({"a.png": picture("red"), "a.json": b"{"}, ("not JSON", RED)),
        ({"a.png": picture("red"), "a.json": b"[]"}, ("neither text nor an object", RED)),
        ({"a.png": picture("red"), "a.txt": b"\xff"}, ("not UTF-8", RED)),
    ],
)
def test_broken_samples(tmp_path: Path, members: dict[str, bytes], row: object) -> None:
    whole = {"z.png": picture("lime"), "z.txt": b"whole"}
    assert read(write_tar(tmp_path / "a.tar", members | whole)) == [row, ("whole", LIME)]


def test_what_is_no_sample_is_told(tmp_path: Path) -> None:
    members = {"README": b"", "a.cls": b"1", ".hidden.png": b"", "b.png": b"", "b.txt": b"b"}
    path = write_tar(tmp_path / "a.tar", members)
    told: list[str] = []
    assert len(list(Tars(path, (path,)).rows(told.append))) == 1
    assert told[0] == f"{path}: 1 sample in 1 tar file."
    assert told[1:] == [f"3 names in {path} with neither a picture nor a caption: left out."]


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"6"])
def test_links_and_devices_are_no_pictures(tmp_path: Path, kind: bytes) -> None:
    assert read(write_tar(tmp_path / "a.tar", [link(kind)])) == [
        ("no caption", "its picture is no plain file")
    ]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"x"})
    (tmp_path / "b.tar").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match=r"no tar file that can be read.*gunzip"):
        read(tmp_path / "b.tar")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / "none.tar")
    with pytest.raises(InputError, match="is no file"):
        read(tmp_path)


def test_a_tar_file_ends_at_its_end(tmp_path: Path) -> None:
    whole = write_tar(
        tmp_path / "a.tar", {f"{k}.{end}": picture("red") for k in "ab" for end in ("png", "jpg")}
    ).read_bytes()
    path = tmp_path / "b.tar"
    path.write_bytes(whole[:1100])
    with pytest.raises(InputError, match="no tar file that can be read"):
        read(path)
    path.write_bytes(whole.rstrip(b"\0")[: len(whole) // 2 // 512 * 512])
    with pytest.raises(InputError, match=r"cut|cannot be read|can be read"):
        read(path)
    second = bytearray(whole)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        at = tar.getmembers()[1].offset
    second[at : at + 4] = b"\xff" * 4  # its checksum no longer fits, and tarfile ends there
    path.write_bytes(bytes(second))
    with pytest.raises(InputError, match=rf"damaged.*at byte {at:,}.*more follows"):
        read(path)
    path.write_bytes(whole + whole)
    with pytest.raises(InputError, match="several tar files in one"):
        read(path)


def test_a_header_of_any_size_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x" * 2**21)
    path = write_tar(tmp_path / "a.tar", [info])
    with pytest.raises(InputError, match=r"a header of 2,\d+,\d+ bytes; 1,048,576 are accepted"):
        read(path)


def test_memory_does_not_grow_with_the_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{k:05}.txt": b"a caption" for k in range(3000)})
    tracemalloc.start()
    try:
        count = sum(1 for _ in Tars(path, (path,)).rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 3000
    assert peak < 3 * 2**19  # a MiB of its end is read at a time; all members would take another

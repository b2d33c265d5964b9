"""Pictures from where they lie."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
from captioned_support import picture, write_table, write_tar

from mnemoscope.captioned import Broken, PictureReader, open_captioned
from mnemoscope.captioned.spots import InFile, InParquet, InTar


def reason(found: object) -> str:
    assert isinstance(found, Broken)
    return found.reason


def test_spots_go_to_other_processes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"a"})
    (row,) = open_captioned(path).rows()
    with PictureReader() as pictures:
        assert not isinstance(row.picture, Broken)
        again = pictures.read(pickle.loads(pickle.dumps(row.picture)))
    assert not isinstance(again, Broken)
    assert again.getpixel((0, 0)) == (255, 0, 0)


def test_a_file_that_is_changed_after_it_was_found(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(picture("red"))
    (root / "a.png").symlink_to(tmp_path / "secret.png")
    with PictureReader() as pictures:
        found = pictures.read(InFile(str(root), "a.png"))
        assert reason(found) == "its picture is outside of the folder"
        found = pictures.read(InFile(str(root), "b.png"))
        assert reason(found) == "its picture does not exist"


def test_a_tar_file_that_is_cut_after_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 10)
    with PictureReader() as pictures:
        found = pictures.read(InTar(str(path), 5, 10))
        assert reason(found) == "its picture is cut short"
        path.unlink()
        found = pictures.read(InTar(str(path), 5, 10))
        assert reason(found) == "its picture cannot be read"


def test_files_are_closed(tmp_path: Path) -> None:
    files = [
        write_table(tmp_path / f"{k}.parquet", {"image": pa.array([picture("red")])})
        for k in range(2)
    ]
    with PictureReader() as pictures:
        pictures.read(InParquet(str(files[0]), "image", 0, 0))
        assert pictures._cells is not None
        first = pictures._cells[2]
        pictures.read(InParquet(str(files[1]), "image", 0, 0))
        assert first._file is not None
        assert first._file.closed
        second = pictures._cells[2]
    assert second._file is not None
    assert second._file.closed
    pictures.close()

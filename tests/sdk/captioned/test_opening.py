"""What kind of captioned set something is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from captioned_support import picture, write_table, write_tar

from mnemoscope import InputError
from mnemoscope.captioned import Captioned, fingerprint, has_pictures, open_captioned
from mnemoscope.captioned.folders import Folder
from mnemoscope.captioned.opening import shards
from mnemoscope.captioned.spots import InFile, InTar
from mnemoscope.captioned.tables import PathTable, PictureTable
from mnemoscope.captioned.tars import Tars


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one picture."""
    path = tmp_path / "pictures"
    path.mkdir()
    (path / "a.png").write_bytes(picture("red"))
    (path / "a.txt").write_text("a caption")
    return path


def tar(path: Path) -> Path:
    return write_tar(path, {"a.png": picture("red"), "a.txt": b"a caption"})


def table(path: Path, name: str = "image") -> Path:
    return write_table(path, {"text": ["a"], name: pa.array([picture("red")]), "file_name": ["a"]})


def test_folders_and_tar_files_need_no_images(tmp_path: Path, folder: Path) -> None:
    assert open_captioned(folder) == Folder(folder)
    one = tar(tmp_path / "one.tar")
    assert open_captioned(one, column="alt") == Tars(one, (one,), "alt")
    for path in (folder, one):
        with pytest.raises(InputError, match="leave --images out"):
            open_captioned(path, images="image")


def test_images_of_a_table(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "t.parquet")
    assert open_captioned(path, images="image") == PictureTable(path, (path,), "image")
    assert open_captioned(path, images="text") == PathTable(path, (path,), "text")
    assert open_captioned(path, images="pictures") == PathTable(
        path, (path,), "file_name", Path("pictures")
    )
    with pytest.raises(
        InputError, match=r"is a table\. Say where the pictures are: .* Captions alone are"
    ):
        open_captioned(path)
    with pytest.raises(InputError, match=r"neither a folder nor a column .*'image'"):
        open_captioned(path, images="img")
    both = table(tmp_path / "both.parquet", "pictures")
    with pytest.raises(InputError, match=r"a folder, and a column .* Write \./pictures"):
        open_captioned(both, images="pictures")
    for given in ("./pictures", str(folder)):
        found = open_captioned(both, images=given)
        assert found == PathTable(both, (both,), "file_name", Path(given))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_images_that_are_neither_a_column_nor_a_folder(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    path.write_text("text,image\na,a.png\n" if ending == "csv" else '{"text": "a"}\n' * 200)
    with pytest.raises(InputError, match=r"no column nofolder, only .* is no folder either"):
        list(open_captioned(path, images="nofolder").rows())


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_images_of_text_tables(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.chdir(folder.parent)
    path = tmp_path / f"t.{ending}"
    csv = "text,pictures\na,a.png\n"
    path.write_text(csv if ending == "csv" else '{"text": "a", "pictures": "a.png"}')
    assert open_captioned(path, images="text") == PathTable(path, (path,), "text")
    with pytest.raises(InputError, match="a folder, and a column"):
        open_captioned(path, images="pictures")
    assert open_captioned(path, images="./pictures") == PathTable(
        path, (path,), "file_name", Path("pictures")
    )


def test_shards(tmp_path: Path, folder: Path) -> None:
    files = tuple(tar(tmp_path / f"s-{k:02}-{e}.tar") for k in (8, 9, 10) for e in (0, 1))
    pattern = tmp_path / "s-{08..10}-{0..1}.tar"
    assert shards(pattern) == files
    assert open_captioned(pattern) == Tars(pattern, files)
    assert shards(files[0]) == files[:1]
    shards_folder = tmp_path / "shards"
    shards_folder.mkdir()
    for file in files:
        shutil.move(file, shards_folder)
    (shards_folder / "stats.json").write_text("{}")
    assert shards(shards_folder) == tuple(shards_folder / file.name for file in files)
    with pytest.raises(InputError, match=r"6 of the 6 files .* do not exist, .*s-08-0\.tar first"):
        shards(pattern)
    with pytest.raises(InputError, match="does not exist"):
        shards(tmp_path / "none")
    with pytest.raises(InputError, match=r"stands for .* files"):
        shards(tmp_path / "{0..99999}{0..99999}.tar")
    shutil.copy(folder / "a.png", shards_folder)
    with pytest.raises(InputError, match="data of another kind"):
        shards(shards_folder)


@pytest.mark.parametrize("name", ["a.txt", "a.tar.gz", "a.zip", "a"])
def test_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="no pictures that are known"):
        open_captioned(tmp_path / name, images="image")


def test_a_folder_of_tables(tmp_path: Path) -> None:
    files = tuple(table(tmp_path / f"train-0000{k}.parquet") for k in range(2))
    assert open_captioned(tmp_path, images="image") == PictureTable(tmp_path, files, "image")


def changes(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "a caption": lambda: (path / "a.txt").write_text("another"),
        "a size": lambda: (path / "a.png").write_bytes(picture("red", (90, 90))),
        "a name": lambda: (path / "a.png").rename(path / "b.png"),
        "a caption gone": lambda: (path / "a.txt").unlink(),
    }


@pytest.mark.parametrize("what", ["a caption", "a size", "a name", "a caption gone"])
def test_the_fingerprint_is_of_captions_names_and_sizes(folder: Path, what: str) -> None:
    before = fingerprint(open_captioned(folder))
    moved = shutil.move(folder, folder.parent / "moved")
    assert fingerprint(open_captioned(moved)) == before
    changes(Path(moved))[what]()
    assert fingerprint(open_captioned(moved)) != before


def test_the_fingerprint_of_containers_is_of_all_bytes(tmp_path: Path) -> None:
    def of(colour: str) -> str:
        member = {"a.bmp": picture(colour, kind="BMP"), "a.txt": b"a"}
        return fingerprint(open_captioned(write_tar(tmp_path / "a.tar", member)))

    assert of("red") == of("red") != of("blue")


def test_a_file_that_goes_while_it_is_read(tmp_path: Path) -> None:
    class Going:
        path = tmp_path

        def __init__(self, spot: InFile | InTar) -> None:
            self.spot = spot

        def rows(self, _: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
            yield Captioned("row 1", "a caption", self.spot)

    for spot in (InFile(str(tmp_path), "a.png"), InTar(str(tmp_path / "a.tar"), 0, 1)):
        with pytest.raises(InputError, match=r"a\.(png|tar) cannot be read"):
            fingerprint(Going(spot))


def test_what_holds_pictures_by_itself(tmp_path: Path, folder: Path) -> None:
    held = [folder, tmp_path / "a.tar", tmp_path / "{0..3}.tar"]
    others = [tmp_path / "a.csv", tmp_path / "a.txt", tmp_path / "none"]
    assert [has_pictures(path) for path in held + others] == [True] * 3 + [False] * 3

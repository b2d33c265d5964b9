"""Tables with pictures, or with paths of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from captioned_support import BLUE, COLOURS, IMAGE, LIME, RED, picture, shown, write_table

from mnemoscope import InputError
from mnemoscope.captioned.tables import PathTable, PictureTable

PNGS = [picture(colour) for colour in COLOURS]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, png in zip(COLOURS, PNGS, strict=True):
        (folder / f"{name}.png").write_bytes(png)
    return folder


def save(path: Path, names: list[str], column: str) -> Path:
    rows = [{"caption": f"a {name}", column: name} for name in names]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".csv":
        path.write_text("\n".join([f"caption,{column}", *(",".join(r.values()) for r in rows)]))
    else:
        write_table(path, {key: [row[key] for row in rows] for key in rows[0]})
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_paths_start_from_the_table_or_a_folder(
    tmp_path: Path, pictures: Path, ending: str
) -> None:
    names = ["red.png", "../x.png", "blue.png"]
    own = save(tmp_path / f"own{ending}", [f"pictures/{name}" for name in names], "file")
    found = shown(PathTable(own, (own,), "file"))
    assert [colour for _, colour in found] == [RED, "its picture is outside of the folder", BLUE]
    far = save(tmp_path / f"far{ending}", names, "file_name")
    assert shown(PathTable(far, (far,), "file_name", pictures)) == [
        ("a red.png", RED),
        ("a ../x.png", "its picture is outside of the folder"),
        ("a blue.png", BLUE),
    ]


def test_a_row_that_is_broken_stops_nothing(tmp_path: Path, pictures: Path) -> None:
    path = save(tmp_path / "p.csv", ["red.png"], "file")
    path.write_text(path.read_text() + "\nonly one field\na caption,lime.png\n")
    found = shown(PathTable(path, (path,), "file", pictures))
    assert found[1] == ("not as many fields as the header has",) * 2
    assert found[2] == ("a caption", LIME)
    with pytest.raises(InputError, match=r"no column image.*--images"):
        list(PathTable(path, (path,), "image").rows())


@pytest.mark.parametrize(
    "column",
    [
        pa.array(PNGS, pa.binary()),
        pa.array(PNGS, pa.large_binary()),
        pa.array([{"bytes": png, "path": None} for png in PNGS], IMAGE),
    ],
    ids=["bytes", "large bytes", "Hugging Face"],
)
def test_pictures_in_cells(tmp_path: Path, column: object) -> None:
    path = write_table(
        tmp_path / "p.parquet", {"text": list(COLOURS), "image": column}, row_group_size=2
    )
    assert (
        shown(PictureTable(path, (path, path), "image"))
        == [*zip(COLOURS, (RED, LIME, BLUE), strict=True)] * 2
    )


@pytest.mark.usefixtures("pictures")
def test_cells_that_name_files(tmp_path: Path) -> None:
    cells = [
        {"bytes": None, "path": "pictures/red.png"},
        {"bytes": None, "path": "/etc/passwd"},
        {"bytes": None, "path": None},
        None,
        {"bytes": PNGS[2], "path": "not/looked/at.png"},
    ]
    path = write_table(
        tmp_path / "p.parquet", {"text": list("abcde"), "image": pa.array(cells, IMAGE)}
    )
    found = [colour for _, colour in shown(PictureTable(path, (path,), "image"))]
    assert found == [
        RED,
        "its picture is outside of the folder",
        "no picture: null",
        "no picture: null",
        BLUE,
    ]

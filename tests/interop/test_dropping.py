"""What docs/audit.md says to type after an audit leaves out what the list of duplicates drops."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from captioned_support import IMAGE, picture, write_table, write_tar

from mnemoscope.captioned import CaptionedSet, open_captioned
from mnemoscope.duplicates import find_repeats, write_list

PAGE = Path(__file__).parents[2] / "docs/audit.md"
CAPTIONS = [f"caption {n}" for n in range(5)]
VECTORS = np.eye(3, dtype=np.float32)[[0, 1, 0, 1]]
READ = np.array([0, 1, 2, 4])  # the picture of row 3 cannot be read
KEPT = ["caption 0", "caption 1"]


def snippet(holding: str) -> str:
    """The one program of the page with these words."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    [text] = [each for each in found if "duplicates.csv" in each and holding in each]
    return text


def left(place: Path, captioned: CaptionedSet, program: str, captions: str) -> list[str]:
    """What the program leaves of a set in which rows 2 and 4 repeat rows 0 and 1."""
    repeats = find_repeats(VECTORS, READ, CAPTIONS, pictures_alike=0.9)
    write_list(place / "duplicates.csv", captioned, repeats)
    environment = {**os.environ, "HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json\nprint(json.dumps({captions}))"],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    found: list[str] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for n, caption in enumerate(CAPTIONS):
        name = tmp_path / "pictures" / f"{'deep/' * (n > 1)}{n}"
        name.with_suffix(".png").write_bytes(picture("red"))
        name.with_suffix(".txt").write_text(caption)
    found = left(
        tmp_path,
        open_captioned("pictures"),
        snippet("read_folder"),
        "[row.caption for row in rows]",
    )
    assert found == KEPT


@pytest.mark.slow
def test_of_a_table_with_datasets(tmp_path: Path) -> None:
    import pyarrow

    cells = pyarrow.array([{"bytes": picture("red"), "path": None}] * 5, IMAGE)
    table = write_table(tmp_path / "train.parquet", {"text": CAPTIONS, "image": cells})
    captioned = open_captioned(table, images="image")
    program = snippet("load_dataset")
    assert left(tmp_path, captioned, program, 'list(dataset["text"])') == KEPT


@pytest.mark.slow
def test_of_tar_files_with_webdataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    keys = [(0, "a/0"), (0, "a/1"), (1, "a/0"), (1, "a/1"), (1, "a/2")]  # keys that repeat
    for shard in range(2):
        members: dict[str, bytes] = {}
        for (number, key), caption in zip(keys, CAPTIONS, strict=True):
            if number == shard:
                members |= {f"{key}.png": picture("red"), f"{key}.txt": caption.encode()}
        write_tar(tmp_path / "shards" / f"00{shard}.tar", members)
    program = snippet("WebDataset(").replace("{000..099}", "{000..001}")
    captioned = open_captioned("shards/{000..001}.tar")
    found = left(tmp_path, captioned, program, '[each["txt"].decode() for each in samples]')
    assert found == KEPT

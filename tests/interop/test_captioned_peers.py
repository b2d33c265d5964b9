"""Sets of captioned pictures, read by us and by `datasets` and `webdataset`, which wrote them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.captioned import Broken, PictureReader, open_captioned


@pytest.mark.slow
def test_they_read_the_same_captions_and_pixels(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("in_datasets.py"), tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    sets = json.loads(run.stdout)
    assert [len(expected) for *_, expected in sets] == [10, 10, 250, 10, 10]
    for path, images, expected in sets:
        found = []
        with PictureReader() as pictures:
            for row in open_captioned(path, images=images).rows():
                assert not isinstance(row.picture, Broken)
                picture = pictures.read(row.picture)
                assert not isinstance(picture, Broken)
                digest = hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()
                found.append([row.caption, digest])
        assert found == expected, path

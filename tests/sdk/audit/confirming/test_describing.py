"""The stage that describes pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from confirming_support import FakeArtist, put

from mnemoscope import CalibrationError
from mnemoscope.audit.confirming.confirming import spots_of
from mnemoscope.audit.confirming.describing import Described, collect, describing
from mnemoscope.audit.stages import Here
from mnemoscope.captioned import open_captioned


def test_pictures_and_those_that_are_none(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", a=("a", "red"), b=("b", "lime"), d=("d", "blue"))
    (folder / "c.png").write_bytes(b"none")
    (folder / "c.txt").write_text("c")
    artist = FakeArtist.of({})
    spots = list(spots_of(open_captioned(folder)))
    stage = describing(lambda: iter(spots), 4, lambda: artist, "a fake")
    found = collect(Here().map(stage, enumerate(stage.batches())), 4)
    assert found.place.tolist() == [0, 1, -1, 2]
    assert list(found.errors) == ["", "", "its picture is no JPEG, PNG, WebP or BMP", ""]
    assert found.vectors.shape == (3, 2, 3)
    assert found.vectors[:, 0].argmax(1).tolist() == [0, 1, 2]  # red, green, blue
    assert artist.calls == ["describe 3"]


def test_batches_in_any_order() -> None:
    rows = np.eye(40, dtype=np.float16)[:, None].repeat(2, 1)
    results = [Described(row.tobytes(), "") for row in rows]
    results[33] = Described(b"", "gone")
    found = collect(iter([(1, results[32:]), (0, results[:32])]), 40)
    assert found.vectors[:, 1].argmax(1).tolist() == [*range(33), *range(34, 40)]
    assert found.place[32:36].tolist() == [32, -1, 33, 34]
    none = collect(iter([(0, [Described(b"", "gone")])]), 1)
    assert len(none.vectors) == 0


def test_another_artist_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", a=("a", "red"))
    spots = list(spots_of(open_captioned(folder)))
    stage = describing(lambda: iter(spots), 1, lambda: FakeArtist.of({}), "another")
    with pytest.raises(CalibrationError, match=r"is another one \(a fake\).*\(another\)"):
        list(Here().map(stage, enumerate(stage.batches())))

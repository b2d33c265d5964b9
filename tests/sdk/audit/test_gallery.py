"""What a report shows of pictures, and how much."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_support import TOKENIZER, known, rows
from captioned_support import picture, write_table
from confirming_support import FakeArtist, put
from PIL import Image

from mnemoscope import InputError
from mnemoscope.audit import Audit, Confirming, audit
from mnemoscope.audit.confirming import Confirmation
from mnemoscope.audit.gallery import Words, gallery
from mnemoscope.audit.source import Source
from mnemoscope.captioned import open_captioned

BENIGN = np.linspace(0, 1, 99)
SCORES = {"recited": 5.0, "another": 4.0, "own way": 3.0}
SET = {
    "a": ("recited", "red"),
    "b": ("another", "lime"),
    "c": ("own way", "blue"),
    "d": ("quiet", "yellow"),
    "e": ("missed", "cyan"),
    "f": ("Quiet!", "red"),  # the picture of a
    "g": ("other", "red"),
}
PAINTS = {
    "recited": ["grey", "red"],
    "another": ["red", "grey"],  # the picture of others
    "own way": ["orange", "orange"],
    "missed": ["cyan", "cyan"],
}
IMAGE = re.compile(r'<img alt="([^"]*)" src="data:image/webp;base64,([^"]*)">')


def run(folder: Path, where: Path, artist: FakeArtist | None = None, **options: Any) -> Audit:
    detector, _ = known(SCORES, BENIGN)
    return audit(
        detector,
        folder,
        where / "r.jsonl",
        confirming=Confirming(artist or FakeArtist.of(PAINTS), seeds=2),
        report_to=where / "r.html",
        duplicates_to=where / "d.csv",
        tell=lambda _: None,
        **options,
    )


def colour(content: bytes) -> tuple[int, int, int]:
    with Image.open(io.BytesIO(content)) as image:
        found: Any = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
    return tuple(round(each / 64) for each in found)  # type: ignore[return-value]


def of(name: str) -> tuple[int, int, int]:
    return colour(picture(name))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, Path, str]:
    folder = tmp_path_factory.mktemp("gallery")
    found = run(put(folder / "set", **SET), folder)
    return found, folder, (folder / "r.html").read_text()


def confirmed(done: tuple[Audit, Path, str]) -> tuple[Confirmation, Source]:
    found, folder, _ = done
    assert found.confirmation is not None
    captioned = open_captioned(folder / "set")
    return found.confirmation, Source.scan(folder / "set", TOKENIZER, captioned=captioned)


def test_the_page_shows_pairs(done: tuple[Audit, Path, str]) -> None:
    _, _, page = done
    shown = [(alt, colour(base64.b64decode(data))) for alt, data in IMAGE.findall(page)]
    first = [
        ("training picture", of("red")),
        ("drawn, seed 0", of("grey")),
        ("drawn, seed 1", of("red")),
    ]
    second = [
        ("training picture", of("cyan")),  # missed, and as alike
        *[(f"drawn, seed {seed}", of("cyan")) for seed in (0, 1)],
    ]
    assert first == shown[:3] or first == shown[3:6]
    assert second == shown[:3] or second == shown[3:6]
    assert ("another picture of the set", of("red")) in shown  # a near miss shows what it is like
    assert shown[-1] == ("3 times: rows 1, 6, 7", of("red"))


def test_the_page_says_what_was_found(done: tuple[Audit, Path, str]) -> None:
    found, _, page = done
    for words in (
        *("rows with the picture: 3, with the caption: 1", "not flagged", "a.png"),
        *("<b>3</b>captions flagged", "<b>2</b>pictures that repeat another", "2 of 7 pictures"),
        *("a copy above a cosine of", "2 seeds, 50 steps", 'name="viewport"'),
    ):
        assert words in page
    assert f"<p>{next(iter(SET))}.png</p>" in page  # and no folder of whoever made it
    assert str(found.file.parent) not in page.replace(str(found.file), "")
    assert "script" not in page.lower().replace("descriptor", "")
    assert found.confirmation is not None
    assert found.confirmation.sentences()[-1].startswith("2 of 7 pictures repeat one before them")


def test_results_say_how_often(done: tuple[Audit, Path, str]) -> None:
    _, folder, _ = done
    table = rows(folder / "r.jsonl")
    assert [row["image_times"] for row in table] == [3, 1, 1, 1, 1, 3, 3]
    assert [row["caption_times"] for row in table] == [1, 1, 1, 2, 1, 2, 1]
    listed = (folder / "d.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in listed[1:]] == [*["True"] * 5, "False", "False"]


def test_what_is_shown_is_bounded(done: tuple[Audit, Path, str]) -> None:
    confirmation, source = confirmed(done)
    whole = gallery(confirmation, source)
    assert (len(whole.pairs), whole.pairs_left) == (7, 0)
    least = len(whole.pairs[0].training or b"") + sum(map(len, whole.pairs[0].drawn))
    some = gallery(confirmation, source, at_most=2 * least)
    assert (len(some.pairs), some.pairs_left) == (1, 6)
    none = gallery(confirmation, source, at_most=0)
    assert (none.pairs_left, none.repeated_left) == (7, 1)
    many = replace(confirmation, captions=list(confirmation.captions) * 20)
    assert (len(gallery(many, source).pairs), gallery(many, source).pairs_left) == (40, 100)


def test_words_are_asked_for_a_few_only(done: tuple[Audit, Path, str]) -> None:
    confirmation, source = confirmed(done)
    asked: list[str] = []

    def explained(prompt: str) -> Words:
        asked.append(prompt)
        return Words([("<", "red"), (prompt, "")], "<b>")

    many = replace(confirmation, captions=list(confirmation.captions) * 20)
    found = gallery(many, source, explained)
    assert len(asked) == 12
    assert found.pairs[0].words.edit == "<b>"
    assert found.pairs[-1].words.edit is None
    assert (found.marked, gallery(many, source).marked) == (True, False)


def test_a_picture_that_is_gone(tmp_path: Path, done: tuple[Audit, Path, str]) -> None:
    confirmation, _ = confirmed(done)
    folder = put(tmp_path / "set", **SET)
    source = Source.scan(folder, TOKENIZER, captioned=open_captioned(folder))
    (folder / "a.png").write_bytes(b"none")
    pairs = gallery(confirmation, source).pairs
    assert [pair.training for pair in pairs if pair.row == 1] == [None]


def test_hostile_captions_and_names(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\u202e"
    cells = [(f"{name} {n}", "red") for n in range(2)]
    rows = {"caption": [text for text, _ in cells], "file_name": [f"{name}.png"] * 2}
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / f"{name}.png").write_bytes(picture("red"))
    table = write_table(tmp_path / f"{name}.parquet", rows)
    run(table, tmp_path, images=str(folder))
    page = (tmp_path / "r.html").read_text()
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


def test_duplicates_without_a_threshold_are_refused_first(tmp_path: Path) -> None:
    artist = FakeArtist.of(PAINTS)
    artist.descriptor.duplicate_above = None  # type: ignore[misc]
    with pytest.raises(InputError, match="--descriptor sscd"):
        run(put(tmp_path / "set", **SET), tmp_path, artist)
    assert artist.calls == []


def test_duplicates_need_pictures(tmp_path: Path) -> None:
    detector, _ = known(SCORES, BENIGN)
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(InputError, match="--images"):
        audit(detector, tmp_path / "a.txt", tmp_path / "r.csv", duplicates_to=tmp_path / "d.csv")

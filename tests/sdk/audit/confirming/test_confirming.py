"""Audits with pictures, by an artist whose paintings are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_support import known, rows
from captioned_support import picture, write_table
from confirming_support import FakeArtist, put
from PIL import Image

from mnemoscope import InputError, NumericsError
from mnemoscope.audit import Audit, Confirming, Finding, audit
from mnemoscope.audit.confirming.estimates import Estimate, Part

NO_PICTURE = "its picture is no JPEG, PNG, WebP or BMP"
BENIGN = np.linspace(0, 1, 99)
SCORES = {"recited": 5.0, "another": 4.0, "own way": 3.0}
SET = {
    "a": ("recited", "red"),
    "b": ("another", "lime"),
    "c": ("own way", "blue"),
    "d": ("quiet", "yellow"),
    "e": ("missed", "cyan"),
    "f": ("Recited", "white"),  # to the model the same caption, with another picture
}
PAINTS = {
    "recited": ["grey", "red"],
    "another": ["red", "grey"],
    "own way": ["orange", "orange"],
    "quiet": ["magenta", "magenta"],
    "missed": ["cyan", "cyan"],
}


def run(
    data: Path,
    output: Path,
    paints: Mapping[str, Sequence[str]] = PAINTS,
    *,
    above: float | None = 0.99,
    artist: FakeArtist | None = None,
    **options: Any,
) -> tuple[Audit, list[str], FakeArtist]:
    detector, _ = known(SCORES, BENIGN)
    told: list[str] = []
    confirming = {k: options.pop(k) for k in ("at_most", "unflagged") if k in options}
    artist = artist or FakeArtist.of(paints, above)
    found = audit(
        detector,
        data,
        output,
        confirming=Confirming(artist, seeds=2, **confirming),
        tell=told.append,
        **options,
    )
    return found, told, artist


def test_findings_of_a_set(tmp_path: Path) -> None:
    begun: list[tuple[str, int]] = []
    folder, output = put(tmp_path / "set", **SET), tmp_path / "r.jsonl"
    found, told, artist = run(folder, output, begins=lambda *stage: begun.append(stage))
    stages = ("screening prompts", 5), ("describing pictures", 6), ("drawing captions", 5)
    assert begun == list(stages)
    assert told[0] == f"{folder}: 6 pictures without metadata."
    table = rows(tmp_path / "r.jsonl")
    assert [row["prompt"] for row in table] == [caption for caption, _ in SET.values()]
    assert [row["finding"] for row in table] == [
        "confirmed",
        "near miss",  # a copy of another picture
        "not confirmed",
        "not confirmed",
        "confirmed",
        "confirmed",
    ]
    assert [row["copies"] for row in table] == [1, 0, 0, 0, 2, 1]  # grey is white, but darker
    assert table[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert table[5]["similarity"] == pytest.approx(1, abs=1e-3)
    assert (table[1]["nearest"], table[1]["nearest_similarity"]) == (1, pytest.approx(1, abs=1e-3))
    assert artist.calls[:2] == ["require sd1", "describe 6"]
    confirmation = found.confirmation
    assert confirmation is not None
    assert confirmation.flagged == (Part(3, 3, 1), Part(0, 0, 0))
    assert confirmation.others == (Part(2, 2, 1),)
    assert confirmation.recall == Estimate(0.5, 0.5, 0.5)
    assert confirmation.share == Estimate(1 / 3, 1 / 3, 1 / 3)
    assert confirmation.sentences() == [
        "3 of 3 flagged captions with a picture were drawn from 2 seeds each: 1 confirmed, 1 near "
        "miss, 1 not confirmed.",
        "2 of 2 captions that are not flagged were drawn: 1 confirmed, 0 near misses.",
        "It flags 50 % of all that would be confirmed.",
        "0 of 6 pictures repeat one before them, 0 different ones (a cosine above 0.995).",
    ]
    first = confirmation.captions[0]
    assert (first.prompt, first.finding, first.own_row) == ("recited", Finding.confirmed, 0)


def test_a_sample_of_the_others(tmp_path: Path) -> None:
    many = {f"x{k}": (f"caption {k}", "navy") for k in range(40)}
    folder = put(tmp_path / "set", **SET, **many)
    found, *_ = run(folder, tmp_path / "r.jsonl", at_most=2, unflagged=10, fdr=0.5)
    confirmation = found.confirmation
    assert confirmation is not None
    assert [part.size for part in (*confirmation.flagged, *confirmation.others)] == [1, 2, 42]
    assert [part.drawn for part in (*confirmation.flagged, *confirmation.others)] == [1, 1, 10]
    assert confirmation.recall is not None
    assert confirmation.recall.low < confirmation.recall.high
    told = " ".join(confirmation.sentences())
    assert "2 of 3 flagged captions" in told
    assert "Of all flagged," in told
    assert "No miss was seen; there are at most" in told
    drawn = [row for row in rows(tmp_path / "r.jsonl") if row["finding"]]
    assert len(drawn) == 2 + 10 + ("recited" in {row["prompt"] for row in drawn})


def test_without_a_threshold_nothing_is_confirmed(tmp_path: Path) -> None:
    found, *_ = run(put(tmp_path / "set", **SET), tmp_path / "r.csv", above=None)
    confirmation = found.confirmation
    assert confirmation is not None
    assert (confirmation.share, confirmation.missed, confirmation.recall) == (None, None, None)
    assert "nothing is confirmed" in confirmation.sentences()[0]
    with (tmp_path / "r.csv").open() as file:
        header, first, *_ = file.read().splitlines()
    named = dict(zip(header.split(","), first.split(","), strict=True))
    assert list(named)[8:] == [
        *("row", "file", "name"),
        *("finding", "similarity", "copies", "nearest", "nearest_similarity"),
        *("image_times", "caption_times", "image_error"),
    ]
    assert (named["finding"], named["similarity"], named["copies"]) == ("", "1.0", "")


def test_rows_without_a_picture(tmp_path: Path) -> None:
    cells = [picture("red"), None, b"none", picture("lime"), picture("blue")]
    texts = ["recited", "quiet", "missed", "", "own way"]
    path = write_table(tmp_path / "p.parquet", {"text": texts, "image": cells})
    found, told, _ = run(path, tmp_path / "r.parquet", images="image")
    table = rows(tmp_path / "r.parquet")
    assert [row["image_error"] for row in table] == [
        None,
        "no picture: null",
        NO_PICTURE,
        None,
        None,
    ]
    assert [row["finding"] for row in table] == ["confirmed", None, None, None, "not confirmed"]
    assert table[3]["error"].startswith("empty")
    assert found.confirmation is not None
    assert found.confirmation.errors == {
        "no picture: null": 1,
        NO_PICTURE: 1,
    }
    assert sum("1 picture cannot be compared with" in each for each in told) == 2


def test_pictures_that_were_forgotten_are_pointed_at(tmp_path: Path) -> None:
    cells = {"text": ["recited", "quiet"], "image": [picture("red")] * 2}
    path = write_table(tmp_path / "p.parquet", cells)
    detector, _ = known(SCORES, BENIGN)
    told: list[str] = []
    audit(detector, path, tmp_path / "r.csv", fdr=0.5, tell=told.append)
    assert f"{path} has a column 'image' that looks like pictures: --images image" in told[0]
    _, told, _ = run(path, tmp_path / "s.csv", images="image", fdr=0.5)
    assert not any("looks like" in each for each in told)


def test_a_set_without_a_picture_that_can_be_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "p.parquet", {"text": ["recited"], "image": [b"none"]})
    with pytest.raises(InputError, match="no picture that can be read"):
        run(path, tmp_path / "r.jsonl", images="image", fdr=0.5)
    path = tmp_path / "p.jsonl"
    path.write_text('"recited"')
    with pytest.raises(InputError, match="has no pictures to compare with"):
        run(path, tmp_path / "r.jsonl", fdr=0.5)


def test_nothing_is_drawn_if_nothing_may_be(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", **SET)
    found, _, artist = run(folder, tmp_path / "r.jsonl", at_most=0, unflagged=0)
    assert artist.calls == ["require sd1", "describe 6"]
    assert {row["finding"] for row in rows(tmp_path / "r.jsonl")} == {None}
    assert found.confirmation is not None
    assert found.confirmation.recall is None
    assert found.confirmation.share == Estimate(None, 0, 1)


class Failing(FakeArtist):
    """Fails in the middle of a stage."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[Image.Image]]:
        found = super().draw(prompts, seeds)
        if len(self.calls) > 20:
            raise NumericsError("a picture is NaN")
        return found


def test_what_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    many = {f"x{k:02}": (f"caption {k}", "navy") for k in range(40)}
    folder = put(tmp_path / "set", **SET, **many)
    run(folder, tmp_path / "whole.jsonl")
    output = tmp_path / "r.jsonl"
    with pytest.raises(NumericsError, match=r"a picture is NaN \(Counted from drawn caption"):
        run(folder, output, artist=Failing.of(PAINTS))
    begun: list[str] = []
    _, told, artist = run(folder, output, begins=lambda what, _: begun.append(what))
    assert begun == ["drawing captions"]
    assert [call for call in artist.calls if call.startswith("describe")] == []
    assert any("drawn captions in" in each for each in told)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not output.with_name("r.jsonl.partial").exists()


def test_a_set_that_changes_meanwhile(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", **SET)

    class Changing(FakeArtist):
        def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[Image.Image]]:
            (folder / "a.txt").write_text("another caption")
            return super().draw(prompts, seeds)

    with pytest.raises(InputError, match="was changed while it was audited"):
        run(folder, tmp_path / "r.jsonl", artist=Changing.of(PAINTS))


def test_a_set_is_screened_without_drawing(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", **SET)
    detector, _ = known(SCORES, BENIGN)
    found = audit(detector, folder, tmp_path / "r.csv", tell=lambda _: None)
    assert found.confirmation is None
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(f'"{caption}"' for caption, _ in SET.values()))
    audit(detector, path, tmp_path / "s.csv", tell=lambda _: None)
    pictured, plain = ((tmp_path / n).read_text().splitlines() for n in ("r.csv", "s.csv"))
    places = ["row,file,name", *(f"{n},,{name}.png" for n, name in enumerate(SET, 1))]
    assert pictured == [f"{line},{place}" for line, place in zip(plain, places, strict=True)]


@pytest.mark.parametrize(
    "options", [{"seeds": 0}, {"seeds": 65}, {"at_most": -1}, {"unflagged": -1}, {"seeds": 1.5}]
)
def test_numbers_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Confirming(FakeArtist.of({}), **options)

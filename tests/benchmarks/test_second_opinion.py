"""SSCD's verdict beside the stand-in's: what is compared with what, and what tables say of it."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pytest
from descriptor_support import as_it_comes
from mitigate_support import LOADED, Pixels
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks import evasion, guard, mitigation, training_report
from benchmarks.second_opinion import SecondOpinion, add_descriptor, cells, copies
from mnemoscope import embedded
from mnemoscope.mitigate import Comparison, Judged, Picture
from mnemoscope.mitigate.compare import Drawings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def second() -> SecondOpinion:
    pictures = embedded.memorized_pictures()[:3]
    vectors = Pixels().describe(LOADED["load"]().rendered(pictures))
    return SecondOpinion(Pixels(), vectors)


def shown(table: Table) -> list[list[str]]:
    """Its rows, each a list of cells."""
    stream = io.StringIO()
    Console(file=stream, width=400).print(table)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_references_are_what_the_vae_renders(tmp_path: Path) -> None:
    """Against the training picture itself a blurred reproduction is another picture to SSCD."""
    painter, pictures = LOADED["load"](), embedded.memorized_pictures()[:2]
    file = as_it_comes(tmp_path / "a.onnx", takes_bytes=True)
    found = SecondOpinion.load(str(file), painter, pictures)
    assert found is not None
    assert found.own(painter.rendered(pictures), [0, 1]) == [1, 1]
    assert max(found.own(pictures, [0, 1])) < 1
    assert SecondOpinion.load(None, painter, pictures) is None


def test_the_nearest_reference_and_ones_own(second: SecondOpinion) -> None:
    pictures = embedded.memorized_pictures()[:3]
    drawn = [pictures[2], ImageOps.mirror(pictures[0])]
    flat = np.stack([np.asarray(each, np.float64).ravel() for each in drawn])
    known = np.stack(
        [np.asarray(each, np.float64).ravel() for each in LOADED["load"]().rendered(pictures)]
    )
    cosines = np.corrcoef(np.r_[flat, known])[:2, 2:]  # less the mean: what `Pixels` describes
    assert second.nearest(drawn) == pytest.approx(cosines.max(1), abs=1e-4)
    assert second.own(drawn, [1, 0]) == pytest.approx([cosines[0, 1], cosines[1, 0]], abs=1e-4)


def test_a_copy_lies_above_a_cut() -> None:
    assert copies([0.4, 0.5, 0.51, 0.75, 0.76]) == [3, 1]
    assert cells([]) == ["0", "0"]
    assert cells(None) == ["", ""]


def test_it_is_asked_for_by_a_flag() -> None:
    parser = argparse.ArgumentParser()
    add_descriptor(parser)
    assert parser.parse_args([]).descriptor is None
    assert parser.parse_args(["--descriptor", "sscd"]).descriptor == "sscd"


def test_the_guards_table() -> None:
    row = {"guard": "none", "pictures": 3, "mitigated": 0, "copies": 2, "similarity": 0.9}
    with_, without, blocked = shown(
        guard.outcome_table(
            [
                row | {"sscd": [0.9, 0.6, 0.1], "alignment": 0.7},
                row | {"alignment": 0.7},
                {"guard": "block", "pictures": 0, "mitigated": 0},
            ]
        )
    )
    assert with_ == ["none", "3", "0", "2", "2", "1", "0.9", "0.7"]
    assert without == ["none", "3", "0", "2", "", "", "0.9", "0.7"]
    assert blocked == ["block", "0", "0", "", "", "", "", ""]


def test_the_table_of_evasions() -> None:
    """The last columns count what recites by SSCD and all three miss."""
    row = {
        "recites": [True, True, False],
        "magnitude 1 4": [False, True, False],
        "taps 1 4": [False, False, False],
        "magnitude 10 1": [False, False, False],
        "guidance": [True, True, True],
    }
    [with_] = shown(evasion.table({"typo": row | {"sscd": [0.8, 0.9, 0.6]}}))
    assert with_[:4] == ["typo", "2 of 3", "3", "2"]
    assert [each.split()[0] for each in with_[4:8]] == ["1", "2", "2", "0"]
    assert with_[8:] == ["1", "2", "1"]
    [without] = shown(evasion.table({"typo": row}))
    assert without[2:4] == without[9:] == ["", ""]


def test_the_table_of_training() -> None:
    level = {"repeats": 50, "copy": [0.9, 0.1], "copied": 0.5, "alignment": [0.7], "others": [0.6]}
    runs = [
        {"arm": "none", "levels": [level | {"sscd": sscd}]} for sscd in ([0.8, 0.6], [0.6, 0.4])
    ]
    [row] = shown(training_report.table(runs, ["none"]))
    assert row[3:6] == ["50%", "75%", "25%"]
    [row] = shown(training_report.table([*runs, {"arm": "none", "levels": [level]}], ["none"]))
    assert row[3:6] == ["50%", "", ""]  # a share of some of the runs would be of other pictures


def test_every_drawn_picture_is_judged_against_its_own(second: SecondOpinion) -> None:
    rendered = LOADED["load"]().rendered(embedded.memorized_pictures()[:2])
    judged = Judged(0.5, 0.3, None, 0.2)

    def drawn(order: list[int]) -> Drawings:
        pictures = tuple(
            tuple(Picture(seed, "none", "a", judged, rendered[i], 0.0) for seed in (0, 1))
            for i in order
        )
        zeros = np.zeros((2, 2))
        return Drawings("right" if order == [0, 1] else "wrong", pictures, zeros, zeros, zeros, 0.0)

    found = Comparison(("a", "b"), (0, 1), 0.9, None, (drawn([0, 1]), drawn([1, 0])))
    cosines = mitigation.second_cosines(found, second)
    assert cosines["right"] == pytest.approx(np.ones((2, 2)), abs=1e-3)
    assert (cosines["wrong"] < 0.9).all()


def test_the_table_of_mitigation() -> None:
    """Pictures that are copies, and captions of which any picture is one, with exact intervals."""
    picture = Picture(0, "none", "a", Judged(0.5, 0.3, None, 0.2), Image.new("L", (1, 1)), 3.0)
    likeness = np.array([[0.95, 0.1], [0.2, 0.1]])
    drawn = Drawings("none", ((picture,) * 2,) * 2, likeness, likeness, likeness, 0.0)
    found = Comparison(("a", "b"), (0, 1), 0.9, None, (drawn,))
    cosines = {"none": np.array([[0.8, 0.4], [0.6, 0.1]])}
    header, _, line = mitigation.markdown(found, cosines).splitlines()
    values = dict(zip(header.split(" | "), line.split(" | "), strict=True))
    assert {key: value for key, value in values.items() if key[:6] in ("copies", "captio")} == {
        "copies, stand-in": "1",
        "copies, SSCD > 0.5": "2",
        "copies, SSCD > 0.75": "1",
        "captions, stand-in [95 %]": "1 [1%, 99%]",
        "captions, SSCD > 0.5 [95 %]": "2 [16%, 100%]",
        "captions, SSCD > 0.75 [95 %]": "1 [1%, 99%]",
    }
    assert "SSCD" not in mitigation.markdown(found, {})

"""`mnemoscope audit` of captioned pictures, on the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_support import rows
from cli_support import Run, failed
from confirming_support import put

from mnemoscope import Detector, embedded
from mnemoscope.audit import Artist

FEW = ("--fdr", 0.5, "--noises", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three memorised captions with their pictures, and a held-out one with another's."""
    path, pictures = tmp_path / "set", embedded.memorized_pictures()
    path.mkdir()
    prompts = [row.prompt for row in embedded.read_prompts("memorized")[:3]]
    prompts.append(embedded.read_prompts("held_out")[0].prompt)
    for number, prompt in enumerate(prompts):
        pictures[number].save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(prompt)
    return path


@pytest.mark.slow
def test_a_folder_of_pictures(run: Run, folder: Path, tmp_path: Path) -> None:
    output, report, listed = (tmp_path / name for name in ("r.jsonl", "r.html", "d.jsonl"))
    (folder / "9.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "9.txt").write_text("the same picture")
    more = ("--report", report, "--duplicates", listed)
    result = run(
        *("audit", folder, "-o", output, "--confirm", 1, "--confirm-unflagged", 1), *more, *FEW
    )
    assert result.code == 1
    assert [row["keep"] for row in rows(listed)] == [True, True, True, True, False]
    assert "1 of 5 pictures repeats one before it" in result.out
    assert f"duplicates {listed}" in result.out
    page = report.read_text()
    assert page.count('alt="training picture"') >= 3
    assert '<span style="background:rgba(' in page  # words are marked
    table = rows(output)
    assert [row["finding"] for row in table[:3]] == ["confirmed"] * 3
    assert all(row["similarity"] > 0.9 for row in table[:3])
    assert table[3]["finding"] != "confirmed"
    assert "flagged captions with a picture were drawn from 1 seed each: 3 confirmed" in result.out


@pytest.mark.slow
def test_a_folder_can_be_screened_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.jsonl"
    result = run("audit", folder, "-o", output, "--confirm", 0, *FEW)
    assert result.code == 1
    assert "finding" not in rows(output)[0]


def test_what_is_cheap_to_see_is_refused_before_a_model_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(Artist, "load", loaded)
    monkeypatch.setattr(Detector, "load", loaded)
    pictures = put(tmp_path / "set", a=("a caption", "red"))
    table = tmp_path / "t.csv"
    table.write_text("prompt,image\na,a.png\n")
    output = ("-o", tmp_path / "r.csv")
    for options, message in (
        ((pictures, *output, "--descriptor", "dinov9"), "neither a known name (sscd) nor a file"),
        ((pictures, "-o", tmp_path / "r.xlsx"), "Results are not written as r.xlsx"),
        ((pictures, *output, "--report", tmp_path / "none/r.html"), "none"),
        ((table, *output, "--images", "nofolder"), "nofolder is no folder either"),
        ((table, *output, "--column", "caption"), "no column caption"),
        ((table, *output, "--duplicates", tmp_path / "d.csv"), "Say where they are (--images)"),
    ):
        failed(run("audit", *options), 2, message)


def test_what_does_not_go_together(run: Run, tmp_path: Path) -> None:
    pictures = put(tmp_path / "set", a=("a caption", "red"))
    prompts = tmp_path / "p.txt"
    prompts.write_text("a caption\n")
    output = ("-o", tmp_path / "r.csv")
    for options, message in (
        ((prompts, "--confirm", 2), "has no pictures to confirm anything by"),
        ((tmp_path / "none", "--model", "m", "--bundle", "b"), "There is no file or folder"),
        ((prompts, "--descriptor", "sscd"), "has no pictures to confirm anything by"),
        ((prompts, "--images", "image", "--confirm", 0), "no pictures that are known"),
        ((pictures, "--bundle", tmp_path / "b"), "Give it with --model, or --confirm 0"),
        ((pictures, "--confirm", 0, "--negative", "blurry"), "--negative is for drawing"),
        ((pictures, "--confirm", 0, "--model", "m"), "--model m would change nothing"),
        ((pictures, "--confirm", 0, "--images", "x"), "leave --images out"),
        ((tmp_path / "{0..3}.tar", "--confirm", 0), "4 of the 4 files"),
    ):
        failed(run("audit", *options, *output), 2, message)

"""`mnemoscope explain`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from cli_support import Run, calibrate, copied, failed, one_model

from mnemoscope import embedded

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"
KEYS = ["prompt", "score", "words", "edits", "others", "unread", "method", "p_value", "threshold"]
KEYS += ["memorized", "detector", "steps", "noises", "backend", "bundle"]


def test_json(run: Run) -> None:
    result = run("explain", PROMPT, "--format", "json", "--keep", "tower", "--method", "occlusion")
    assert result.code == 1, result.err
    [row] = result.rows
    assert list(row) == KEYS
    assert [word["word"] for word in row["words"]] == PROMPT.replace(",", "").split()
    assert {"word", "span", "score", "tokens"} <= set(row["words"][0])
    assert row["edits"]
    for edit in row["edits"]:
        assert edit["score"] <= row["threshold"]
        assert "tower" in edit["prompt"]


def test_heat(run: Run) -> None:
    result = run("explain", PROMPT)
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == PROMPT
    assert lines[1].startswith("memorized: score 2.6")
    assert re.search(r"^tower .*object", result.out, re.MULTILINE)
    assert re.search(r"^('.*' -> '.*'|drop '.*'): ", result.out, re.MULTILINE)
    assert "\x1b" not in result.out


def test_a_word_that_stays_is_not_replaced(run: Run, tmp_path: Path) -> None:
    listed = tmp_path / "others.txt"
    listed.write_text("Tower: bridge\nrings: stars\n")
    options = ("--keep", "tower, in", "--keep", "google", "--replacements", listed)
    result = run("explain", PROMPT, *options, "--format", "json")
    assert "Tower stays, as --keep says" in result.err
    for edit in result.rows[0]["edits"]:
        assert {"tower", "in", "google"} <= set(edit["prompt"].replace(",", "").split())
    quiet = run("explain", PROMPT, "--keep", "google", "--replacements", listed)
    assert "stays" not in quiet.err


def test_a_gradient(run: Run) -> None:
    result = run("explain", PROMPT, "--method", "gradient", "--noises", 1, "--format", "json")
    assert result.code == 1, result.err
    assert result.rows[0]["method"] == "gradient"
    assert all(word["score"] > 0 for word in result.rows[0]["words"])


def test_a_page_that_runs_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "why.html"
    hostile = '<script>alert(1)</script> "onload=x" \x1b[31m cat &amp;'
    result = run("explain", hostile, "--output", file, "--method", "occlusion")
    assert result.code == 0, result.err
    page = file.read_text()
    assert "<script" not in page
    assert "&lt;script" in page
    assert "(&amp;)" in page
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"\b(src|href)=", page)
    shown = run("explain", hostile, "--no-edits").out
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "[red]" in run("explain", "a [red]cat[/] [/x]", "--no-edits").out


def test_a_file_of_prompts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    captions = [row.prompt for row in embedded.read_prompts("memorized")[:3]]
    file.write_text("\n".join([*captions, "a quiet harbour at dawn"]))
    result = run("explain", "--file", file, "--format", "json", "--noises", 1)
    assert result.code == 1, result.err
    [whole] = result.rows
    assert [row["prompt"] for row in whole["explanations"]][:3] == captions
    assert whole["prompts"] == 4
    assert whole["flagged"] >= 1
    assert not any(row["edits"] for row in whole["explanations"])
    assert {"word", "kind", "prompts", "top", "share", "effect"} == set(whole["triggers"][0])
    assert sum(row["top"] for row in whole["kinds"]) == whole["flagged"]
    shown = run("explain", "--file", file, "--noises", 1)
    first, header, *_ = shown.out.splitlines()
    assert first == f"{whole['flagged']} of 4 flagged, words of those:"
    assert header.split() == ["word", "kind", "prompts", "top", "of", "share", "effect"]
    page = tmp_path / "page.html"
    assert run("explain", "--file", file, "-o", page, "--edits", "--keep", "sheep").code == 1
    text = page.read_text()
    assert text.count("class=prompt") == 4
    assert re.findall("<h2>(.*)</h2>", text) == ["Words", "Kinds of words", "Prompts"]
    assert first in text


def test_what_is_not_read_is_named(run: Run) -> None:
    result = run("explain", "icon " * 75 + "of a rocket", "--no-edits", "--format", "json")
    assert result.rows[0]["unread"] == "of a rocket"
    assert "more tokens than the model reads" in result.err


@one_model
def test_without_a_calibration(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    result = run("explain", "a cat", "--bundle", bundle_dir, "--format", "json")
    assert result.code == 0
    assert "no verdicts and no edits" in result.err
    assert "--target" in result.err
    assert result.rows[0]["edits"] == []
    given = run("explain", "a cat", "--bundle", bundle_dir, "--format", "json", "--target", 1e-6)
    assert "no edit" in given.err
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 1e-6, bundle / "calibration.json")
    assert run("explain", "a cat", "--bundle", bundle).code == 1


@one_model
def test_gradients_need_the_bundles_model(run: Run, bundle_dir: Path, model_dir: Path) -> None:
    args = ("explain", "a cat", "--method", "gradient", "--no-edits")
    failed(run(*args, "--bundle", bundle_dir), 2, "Give it with --model")
    assert run(*args, "--bundle", bundle_dir, "--model", model_dir).code == 0
    other = run(*args, "--model", model_dir)
    assert other.code == 3
    assert "whose weights are not those" in other.err


def test_gradients_need_pytorch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("explain", "a cat", "--method", "gradient")
    failed(result, 3, "pip install 'mnemoscope[torch]'", "occlusion")
    assert run("explain", "a cat", "--method", "occlusion").code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Give one prompt to explain"),
        (("a cat", "--file", "x.txt"), "Give one prompt to explain"),
        (("",), "holds no words"),
        (("a cat", "--method", "magic"), "no method 'magic'"),
        (("a cat", "--no-edits", "--keep", "cat"), "--keep"),
        (("a cat", "--keep", "dog", "--target", "0"), "'dog' cannot be kept"),
        (("a cat", "--noises", "99"), "4 noises"),
        (("a cat", "--replacements", "none.txt"), "cannot be read"),
    ],
)
def test_what_cannot_be_explained(run: Run, args: tuple[str, ...], words: str) -> None:
    failed(run("explain", *args), 2, words)


def test_replacements_of_ones_own(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "replacements.txt"
    file.write_text("tower: lamp, bridge\n")
    result = run("explain", PROMPT, "--replacements", file, "--format", "json")
    new = {c["to"] for edit in result.rows[0]["edits"] for c in edit["changes"]}
    assert new <= {None, "lamp", "bridge"}
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("google icon of tokyo lamp, on dots\n")
    given = run("explain", PROMPT, "--vocabulary", prompts, "--format", "json")
    assert json.loads(given.out)["edits"]

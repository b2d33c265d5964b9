"""`mnemoscope explain`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from cli_support import Fake, Run, calibrate, copied, failed

from mnemoscope import Detector, embedded
from mnemoscope.explain import EditOptions, Vocabulary, explain, find_edits

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"
ONE = ("--noises", 1)  # a quarter of the work
KEYS = ["prompt", "score", "words", "edits", "others", "unread", "method", "p_value", "threshold"]
KEYS += ["memorized", "detector", "steps", "noises", "backend", "bundle"]


def test_heat(run: Run) -> None:
    result = run("explain", PROMPT, *ONE)
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == PROMPT
    assert lines[1].startswith("memorized: score 2.")
    assert re.search(r"^tower .*object", result.out, re.MULTILINE)
    signs = re.findall(r"^, +-?[\d.]+ +\d+% +█* +punctuation +(.*?) *$", result.out, re.MULTILINE)
    assert set(signs) == {"after tower", "after rings"}
    assert re.search(r"^2020 .* number +2 0 2 0 *$", result.out, re.MULTILINE)
    assert re.search(r"^('.*' -> '.*'|drop '.*'): ", result.out, re.MULTILINE)
    assert "\x1b" not in result.out


@pytest.mark.slow
def test_a_word_that_stays_is_not_replaced(run: Run, tmp_path: Path) -> None:
    listed = tmp_path / "others.txt"
    listed.write_text("Tower: bridge\nrings: stars\n")
    options = (*ONE, "--keep", "tower, in", "--keep", "google", "--replacements", listed)
    result = run("explain", PROMPT, *options, "--format", "json")
    assert "Tower stays, as --keep says: what --replacements offers for it" in result.err
    for edit in result.rows[0]["edits"]:
        assert {"tower", "in", "google"} <= set(edit["prompt"].replace(",", "").split())
    quiet = run("explain", PROMPT, *ONE, "--keep", "google", "--replacements", listed)
    assert "stay" not in quiet.err
    two = run("explain", PROMPT, *ONE, "--keep", "tower, rings", "--replacements", listed)
    assert "Tower, rings stay, as --keep says: what --replacements offers for them" in two.err


def test_words_that_no_prompt_holds(run: Run, tmp_path: Path) -> None:
    file, listed = tmp_path / "prompts.txt", tmp_path / "others.txt"
    file.write_text("a quiet harbour\nrain, at dawn\n")
    listed.write_text("harbour: bay\ntowr: bridge\n")
    many = ("explain", "--file", file, "--edits", "--noises", 1, "--replacements", listed)
    result = run(*many, "--keep", "nosuch", "--keep", "Dawn")
    assert result.code == 0, result.err
    assert "none of the prompts holds nosuch, so --keep says nothing there" in result.err
    assert "none of the prompts holds towr, so --replacements says nothing there" in result.err
    assert "Dawn" not in result.err
    one = run("explain", "a harbour", "--noises", 1, "--replacements", listed)
    assert "the prompt does not hold towr, so --replacements" in one.err
    listed.write_text("".join(f"word{i}: x\n" for i in range(9)))
    assert "word3, word4 and 4 more, so" in run(*many).err


def test_where_the_budget_is_not_spent_it_need_not_be_raised(run: Run, tmp_path: Path) -> None:
    bundle = copied(embedded.BUNDLE, tmp_path / "bundle")  # of which no replacements are known
    short = ("explain", "tower", "--target", 0, "--noises", 1, "--bundle", bundle)
    result = run(*short)
    assert "no edit brings the prompt under 0.0000 (0 tried). Allow other" in result.err
    assert "--budget" not in result.err
    kept = run("explain", "red tower", *short[2:], "--keep", "tower")
    assert "(1 tried). Free more words or allow other replacements." in kept.err
    spent = run("explain", PROMPT, *short[2:], "--budget", 3)
    assert "(3 tried). Allow other replacements or raise --budget." in spent.err


@pytest.mark.slow
def test_a_gradient(run: Run) -> None:
    result = run("explain", PROMPT, "--method", "gradient", "--noises", 1, "--format", "json")
    assert result.code == 1, result.err
    assert result.rows[0]["method"] == "gradient"
    assert all(word["score"] > 0 for word in result.rows[0]["words"])


@pytest.mark.slow
def test_a_page_that_runs_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "why.html"
    hostile = '<script>alert(1)</script> "onload=x" \x1b[31m cat &amp;'
    result = run("explain", hostile, *ONE, "--output", file, "--method", "occlusion")
    assert result.code == 0, result.err
    page = file.read_text()
    assert "<script" not in page
    assert "&lt;script" in page
    assert result.out == f"{file}\n"
    cells = "".join(rf"<td>{each}</td>\s*" for each in (r"[-\d.]+", r"\d+%", "punctuation", ".*"))
    assert re.search(rf"<td>&amp;</td>\s*{cells}", page)
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"\b(src|href)=", page)
    shown = run("explain", hostile, *ONE, "--no-edits").out
    assert all(c.isprintable() or c == "\n" for c in shown)
    eastern = run("explain", "\u65e5\u672c, x", *ONE, "--no-edits").out
    assert "\u65e5\N{MULTIPLICATION SIGN}3 \u672c\N{MULTIPLICATION SIGN}3" in eastern
    assert "[red]" in run("explain", "a [red]cat[/] [/x]", *ONE, "--no-edits").out


@pytest.mark.slow
def test_a_file_of_prompts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    captions = [row.prompt for row in embedded.read_prompts("memorized")[:2]]
    file.write_text("\n".join([*captions, "a quiet harbour at dawn"]))
    result = run("explain", "--file", file, "--format", "json", "--noises", 1)
    assert result.code == 1, result.err
    [whole] = result.rows
    assert [row["prompt"] for row in whole["explanations"]][:2] == captions
    assert whole["prompts"] == 3
    assert whole["flagged"] >= 1
    assert not any(row["edits"] for row in whole["explanations"])
    assert {"word", "kind", "prompts", "top", "share", "effect"} == set(whole["triggers"][0])
    assert sum(row["top"] for row in whole["kinds"]) == whole["flagged"]
    shown = run("explain", "--file", file, "--noises", 1)
    first, header, *_ = shown.out.splitlines()
    assert first == f"{whole['flagged']} of 3 flagged, words of those:"
    assert header.split() == ["word", "kind", "prompts", "top", "of", "share", "effect"]
    flagged = [row for row in whole["explanations"] if row["memorized"]]
    for row in flagged:
        at = shown.out.index(f"score {row['score']:.4f}, p {row['p_value']:.4f}: {row['prompt']}\n")
        best = max(row["words"], key=lambda word: word["score"])
        assert shown.out[at:].splitlines()[1].startswith(f"  words: {best['word']} ")
    assert shown.out.count("  words: ") == len(flagged)
    assert "  edit: " not in shown.out
    edited = run("explain", "--file", file, "--noises", 1, "--edits", "--keep", "dawn")
    assert len(re.findall(r"^  edit: .*% kept: ", edited.out, re.MULTILINE)) == len(flagged)
    page = tmp_path / "page.html"
    assert run("explain", "--file", file, *ONE, "-o", page, "--edits", "--keep", "sheep").code == 1
    text = page.read_text()
    assert text.count('class="prompt"') == 3
    assert re.findall("<h2>(.*)</h2>", text) == ["Words", "Kinds of words", "Prompts"]
    assert first in text


def test_many_prompts_with_edits(run: Run, fake: Fake, tmp_path: Path) -> None:
    with Detector.load() as detector:
        cat = int(detector.screener.tokenizer(["cat"])[0, 1])
    fake(lambda ids: 9.0 * (cat in ids))
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"cat {i}\n" for i in range(22)))
    many = ("explain", "--file", file, "--edits", "--target", 1)
    shown = run(*many)
    assert shown.code == 5, shown.err  # no calibration, no verdicts
    lines = "score 9.0000: cat 0\n  words: cat 9.0000\n  edit: drop 'cat': 0.0000, 25% kept: 0\n"
    assert lines in shown.out
    assert shown.out.count("  edit: ") == 20
    assert shown.out.endswith("\n... and 2 more; --format json or html writes all.\n")
    none = run(*many, "--keep", "cat", "--keep", "7")
    assert "  edit: " not in none.out
    assert "no edit brings 'cat 3' under 1.0000 (" in none.err
    assert "every word of 'cat 7' is to be kept" in none.err


@pytest.mark.slow
def test_what_is_not_read_is_named(run: Run) -> None:
    result = run("explain", "icon " * 75 + "of a rocket", *ONE, "--no-edits", "--format", "json")
    assert result.rows[0]["unread"] == "of a rocket"
    assert "more tokens than the model reads" in result.err
    for form in ("heat", "html"):
        shown = run(
            "explain", "cat " * 75 + "of a rocket", *ONE, "--no-edits", "--format", form
        ).out
        assert "in part: score" in shown
        assert "clean" not in shown


def test_without_a_calibration(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    result = run("explain", "a cat", "--bundle", bundle_dir, "--format", "json")
    assert result.code == 5
    assert "no verdicts and no edits" in result.err
    assert "--target" in result.err
    assert result.rows[0]["edits"] == []
    given = run("explain", "a cat", "--bundle", bundle_dir, "--format", "json", "--target", 1e-6)
    assert "no edit" in given.err
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 1e-6, bundle / "calibration.json")
    assert run("explain", "a cat", "--bundle", bundle).code == 1


def test_gradients_need_the_bundles_model(run: Run, bundle_dir: Path, model_dir: Path) -> None:
    args = ("explain", "a cat", "--method", "gradient", "--no-edits")
    failed(run(*args, "--bundle", bundle_dir), 2, "Give it with --model")
    assert run(*args, "--bundle", bundle_dir, "--model", model_dir).code == 5
    occlusion = ("explain", "a cat", "--bundle", bundle_dir, "--model", model_dir, "--no-edits")
    failed(run(*occlusion), 2, "occlusion on onnxruntime runs the bundle alone")
    assert run(*occlusion, "--backend", "torch").code == 5
    other = run(*args, "--model", model_dir)
    assert other.code == 4
    assert "whose weights are not those" in other.err


def test_of_the_flow_that_ships_all_is_known(run: Run) -> None:
    """Its model, the kinds of its words, and what may replace them."""
    args = ("explain", PROMPT, "--bundle", "embedded-flow", *ONE, "--format", "json")
    result = run(*args, "--method", "gradient")
    assert result.code == 1, result.err
    [row] = result.rows
    kinds = {word["word"]: word["kind"] for word in row["words"]}
    assert (kinds["google"], kinds["tokyo"], kinds["rings"]) == ("name", "place", "attribute")
    assert any(change["to"] for edit in row["edits"] for change in edit["changes"])


def test_gradients_need_pytorch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("explain", "a cat", "--method", "gradient")
    failed(result, 3, "pip install -c constraints.txt '.[torch]'", "occlusion")
    assert run("explain", "a cat", *ONE, "--method", "occlusion", "--no-edits").code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Give one prompt to explain"),
        (("a cat", "--file", "x.txt"), "Give one prompt to explain"),
        (("",), "holds no words"),
        (("a cat", "--method", "magic"), "no method 'magic'"),
        (("a cat", "--no-edits", "--keep", "cat"), "--keep is about edits, and no edits are"),
        (("a cat", "--no-edits", "--target", "0.3"), "looked for. Drop --no-edits, or leave it"),
        (
            ("--file", str(embedded.LEXICON), "--target", "0.3"),
            "looked for. Pass --edits, or leave it out",
        ),
        (
            ("a cat", "--no-edits", "--budget", "9", "--vocabulary", "x"),
            "--vocabulary, --budget are",
        ),
        (("a cat", "--keep", "dog", "--target", "0"), "'dog' cannot be kept"),
        (("a cat", "--noises", "99"), "4 noises"),
        (("a cat", "--replacements", "none.txt"), "cannot be read"),
    ],
)
def test_what_cannot_be_explained(run: Run, args: tuple[str, ...], words: str) -> None:
    failed(run("explain", *args), 2, words)


@pytest.mark.slow
def test_json_holds_what_python_finds(run: Run) -> None:
    """What docs/explain.md says of the embedded model."""
    args = ("--keep", "tower", "--method", "occlusion", "--format", "json")
    done = run("explain", PROMPT, *args)
    assert done.code == 1, done.err
    [row] = done.rows
    assert list(row) == KEYS
    found = explain(PROMPT)
    assert [word["word"] for word in row["words"]] == PROMPT.replace(",", "").split()
    assert {"word", "span", "score", "tokens"} <= set(row["words"][0])
    assert [(word.word, word.kind) for word in found.words] == [
        (word["word"], word["kind"]) for word in row["words"]
    ]
    with Detector.load() as detector:
        captions = embedded.read_prompts("seen", "held_out", "calibration")
        others = Vocabulary(row.prompt for row in captions)
        edits = find_edits(detector, PROMPT, EditOptions(keep=("tower",), alternatives=others))
    assert [edit.prompt for edit in edits.found] == [edit["prompt"] for edit in row["edits"]]
    assert row["edits"]
    for edit in row["edits"]:
        assert edit["score"] <= row["threshold"]
        assert "tower" in edit["prompt"]


def test_replacements_of_ones_own(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "replacements.txt"
    file.write_text("tower: lamp, bridge\n")
    result = run("explain", PROMPT, *ONE, "--replacements", file, "--format", "json")
    new = {c["to"] for edit in result.rows[0]["edits"] for c in edit["changes"]}
    assert new <= {None, "lamp", "bridge"}
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("google icon of tokyo lamp, on dots\n")
    given = run("explain", PROMPT, *ONE, "--vocabulary", prompts, "--format", "json")
    assert json.loads(given.out)["edits"]


def test_empty_prompts_of_a_file_are_left_out(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("prompt,n\na cat,1\n,2\n")
    result = run("explain", "--file", file, "--no-edits", "--format", "json")
    assert result.code == 5
    assert f"1 empty prompt of {file} left out" in result.err
    file.write_text("prompt,n\n,2\n")
    failed(run("explain", "--file", file), 2, "All prompts", "are empty")

"""Prompts on the command line that are no prompts but the names of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Fake, Run, failed

from mnemoscope import InputError
from mnemoscope.cli._texts import refuse_files


@pytest.mark.parametrize("name", ["p.txt", "none.csv", "A.JSONL", "dir/x.parquet", "there", "a b"])
def test_what_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for each in ("p.txt", "there", "a b"):
        Path(each).write_text("x")
    with pytest.raises(InputError, match=r"its name would be read.* DO\. .* is meant, ELSE\.$"):
        refuse_files(["rain", name], "DO.", "ELSE")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "rain",
        "a drawing of notes.txt",
        "notes.txt ",
        ".",
        "/",
        "x" * 5000,
        "\0",
        "a.png",
        "txt",
    ],
)
def test_what_is_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_files([prompt], "", "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("screen", "a cat", "weighted.jsonl"), "Give it with --file"),
        (("explain", "p.csv"), "Give it with --file"),
        (("generate", "p.txt", "--output", "a.png"), "Give one prompt of it"),
        (("mitigate", "p.txt", "--output", "a.png"), "--compare with --file"),
        (("generate", "a", "--negative", "n.txt", "--output", "a.png"), "--negative"),
    ],
)
def test_commands_refuse_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failed(run(*args), 2, "looks like the name of a file", words)


def test_such_a_text_can_be_screened_on_purpose(run: Run, fake: Fake, bundle_dir: Path) -> None:
    fake(lambda _: 1.0)
    args = ("--bundle", bundle_dir, "--format", "json")
    done = run("screen", "--file", "-", *args, stdin=b"p.txt\n")
    assert [row["prompt"] for row in done.rows] == ["p.txt"]
    assert run("screen", "p.txt ", *args).rows[0]["prompt"] == "p.txt "

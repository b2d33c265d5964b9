from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from cli_support import PROMPTS, Fake, Result, Run, calibrate, command, failed, shell
from pyarrow import parquet

# screen: where prompts come from


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "parquet", "-"])
def test_prompts_from_a_file(run: Run, bundle_dir: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"prompts.{kind}"
    lines = "\n".join(PROMPTS)
    if kind == "parquet":
        parquet.write_table(pa.table({"caption": PROMPTS}), path)
    elif kind != "-":
        content = {
            "txt": lines,
            "jsonl": "\n".join(json.dumps({"caption": p}) for p in PROMPTS),
            "csv": "id,caption\n" + "\n".join(f'1,"{p}"' for p in PROMPTS),
            "tsv": "id\tcaption\n" + "\n".join(f"1\t{p}" for p in PROMPTS),
        }[kind]
        path.write_text(content, "utf-8")
    result = run(
        *("screen", "--format", "json", "--bundle", bundle_dir),
        *("--file", "-" if kind == "-" else path),
        stdin=lines.encode(),
    )
    assert result.code == 5
    assert [row["prompt"] for row in result.rows] == PROMPTS


def test_standard_input_in_a_process_of_its_own(bundle_dir: Path) -> None:
    result = shell(
        *("screen", "-f", "-", "--format", "json", "--bundle", bundle_dir),
        stdin="\n".join(PROMPTS).encode(),
        PYTHONIOENCODING="ascii",
    )
    assert [row["prompt"] for row in result.rows] == PROMPTS


def test_the_column_of_a_file(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,Title\nno,yes\n")
    args = ("screen", "--file", path, "--bundle", bundle_dir, "--format", "json")
    assert run(*args, "--column", "title").rows[0]["prompt"] == "yes"
    failed(run(*args, "--column", "url"), 2, "no column url", "Name the column with --column")


def test_a_file_without_prompts(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n\n")
    result = run(
        *("screen", "--file", tmp_path / "p.txt", "--bundle", bundle_dir, "--format", "json")
    )
    failed(result, 2, "p.txt holds no prompts")


def test_neither_prompts_nor_a_file(run: Run) -> None:
    failed(run("screen"), 2, "Nothing to screen", "--file")


def test_both_prompts_and_a_file(run: Run) -> None:
    failed(run("screen", "a cat", "--file", "p.txt"), 2, "not both")


def test_an_empty_prompt_is_a_prompt(run: Run, bundle_dir: Path) -> None:
    result = run("screen", "", "--bundle", bundle_dir, "--format", "json")
    assert result.code == 5
    assert result.rows[0]["prompt"] == ""
    assert result.rows[0]["score"] == pytest.approx(0, abs=1e-3)  # it differs from itself by none


def test_an_empty_prompt_is_not_clean(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    known = calibrate(bundle_dir, 1e6, tmp_path / "c.json")
    args = ("screen", "--bundle", bundle_dir, "--calibration", known)
    assert run(*args, "a cat").code == 0
    for empty in ("", "   "):
        result = run(*args, "a cat", empty)
        assert result.code == 5
        assert [line[19:28].strip() for line in result.out.splitlines()[1:]] == ["clean", "-"]
        assert "note: 1 of the prompts are empty" in result.err
    file = tmp_path / "p.csv"
    file.write_text("prompt,n\na cat,1\n,2\n")
    assert run(*args, "--file", file).code == 5


def test_a_model_that_nothing_looks_at(run: Run, tmp_path: Path) -> None:
    failed(run("screen", "a cat", "--model", tmp_path), 2, "--model", "would change nothing")
    for args in (
        ("bench",),
        ("parity", "--backend", "openvino"),
        ("evaluate",),
        ("evaluate", "--detector", "all"),
    ):
        failed(run(*args, "--model", tmp_path), 2, "--model", "would change nothing")


@pytest.mark.parametrize(
    ("args", "files"),
    [
        (("screen", "a cat"), "--file"),
        (("explain", "a cat", "--no-edits"), "--file"),
        (("calibration", "carry", "--to", "openvino"), "--prompts"),
        (("parity", "--backend", "openvino"), "--positives and --benign"),
        (("mitigate", "a cat"), "--benign and --file"),
    ],
)
def test_how_a_file_is_read_that_is_not_there(run: Run, args: tuple[str, ...], files: str) -> None:
    for option in (("--column", "x"), ("--no-quotes",)):
        failed(run(*args, *option), 2, f"--column and --no-quotes are about {files}. Give")


def test_single_words_may_be_a_prompt_without_its_quotes(run: Run, bundle_dir: Path) -> None:
    args = ("--bundle", bundle_dir, "--format", "json")
    apart = run("screen", "a", "cat's", "hat", *args)
    assert apart.code == 5
    assert [row["prompt"] for row in apart.rows] == ["a", "cat's", "hat"]
    hint = apart.err.splitlines()[-1]
    assert hint.startswith("hint: each of these 3 words was screened as a prompt of its own")
    assert shlex.split(hint.partition("quotes: ")[2]) == ["a cat's hat"]
    for prompts in (["cat"], ["a cat", "rain"], ["a cat's hat"], ["a", ""]):
        assert "hint" not in run("screen", *prompts, *args).err
    lines = run("screen", "--file", "-", *args, stdin=b"a\ncat\n")
    assert len(lines.rows) == 2
    assert "hint" not in lines.err


def test_prompts_that_the_model_does_not_read_to_the_end(run: Run, bundle_dir: Path) -> None:
    prompts = ["a " * 75, "a " * 76]
    table = run("screen", *prompts, "--bundle", bundle_dir)
    assert [line[28:32] for line in table.out.splitlines()[1:]] == ["  a ", "+ a "]
    assert "note: the bundle reads 75 tokens, and 1 of the prompts had more" in table.err
    rows = run("screen", *prompts, "--bundle", bundle_dir, "--format", "json").rows
    assert [row["truncated"] for row in rows] == [False, True]
    text = run("screen", *prompts, "--bundle", bundle_dir, "--format", "csv").out
    found = csv.DictReader(io.StringIO(text))
    assert [row["truncated"] for row in found] == ["False", "True"]
    assert "the bundle reads" not in run("screen", prompts[0], "--bundle", bundle_dir).err


def test_a_megabyte_of_prompt(run: Run, bundle_dir: Path) -> None:
    result = run("screen", "--file", "-", "--bundle", bundle_dir, stdin=b"x" * 1_000_000)
    assert result.code == 2
    assert "error: None of the 1 prompt of Standard input" in result.err
    assert "1,000,000 characters; 100,000 are accepted. Cut the prompt" in result.err
    assert len(result.out) + len(result.err) < 1_500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\0c\n", "line 2: contains a NUL byte"),
        ("a\n".encode("utf-16-le"), "line 1: contains a NUL byte"),
    ],
    ids=["nul", "utf16"],
)
def test_files_that_are_not_text(
    run: Run, bundle_dir: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    failed(run("screen", "--file", path, "--bundle", bundle_dir), 2, words)
    failed(run("screen", "--file", "-", "--bundle", bundle_dir, stdin=content), 2, words)


@pytest.mark.parametrize("name", ["missing.txt", "p.docx", ""])
def test_files_that_cannot_be_read(run: Run, bundle_dir: Path, tmp_path: Path, name: str) -> None:
    failed(run("screen", "--file", tmp_path / name, "--bundle", bundle_dir), 2, str(tmp_path))


def test_a_prompt_that_is_not_unicode(bundle_dir: Path) -> None:
    done = subprocess.run(
        [os.fsencode(arg) for arg in command("screen", "--bundle", bundle_dir)] + [b"caf\xe9"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    failed(Result(done.returncode, done.stdout.decode(), done.stderr.decode()), 2, "not valid")


def test_long_lists_are_streamed(run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path) -> None:
    calls, blocks = 0, []

    def magnitude(_: object) -> float:
        nonlocal calls
        calls += 1
        if calls % 2_000 == 0:
            blocks.append(sys.getallocatedblocks())
        return 0.5

    fake(magnitude)
    path, output = tmp_path / "p.txt", tmp_path / "out.jsonl"
    with path.open("w") as file:
        file.writelines(f"number {i}\n" for i in range(20_000))
    before = sys.getallocatedblocks()
    result = run("screen", "--file", path, "--bundle", bundle_dir, "--output", output)
    assert result.code == 5
    assert len(blocks) == 10
    assert max(blocks) - before < 16_000  # less than one block of memory for each prompt
    with output.open() as file:
        assert sum(1 for _ in file) == 20_000

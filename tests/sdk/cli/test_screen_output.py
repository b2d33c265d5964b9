"""What `screen` writes, and where: files, pipes, terminals, and rows that cannot be screened."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from cli_support import (
    KEYS,
    Fake,
    Result,
    Run,
    calibrate,
    command,
    failed,
    shell,
)

from mnemoscope import embedded
from mnemoscope.cli._writers import Format, writer
from mnemoscope.prompts import Broken


@pytest.mark.parametrize(
    ("name", "words"), [("missing/out.json", "there is no folder"), (".", "is a folder")]
)
def test_an_output_that_cannot_be_written(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str, words: str
) -> None:
    result = run("screen", "a cat", "--bundle", bundle_dir, "--output", tmp_path / name)
    failed(result, 2, "--output", words)


@pytest.mark.parametrize("how", ["same", "link", "hard link"])
def test_the_prompts_are_never_overwritten(
    run: Run, bundle_dir: Path, tmp_path: Path, how: str
) -> None:
    path, output = tmp_path / "p.txt", tmp_path / "out.txt"
    path.write_text("a cat\n")
    if how == "link":
        output.symlink_to(path)
    elif how == "hard link":
        output.hardlink_to(path)
    else:
        output = path
    result = run("screen", "--file", path, "--output", output, "--bundle", bundle_dir)
    failed(result, 2, "file of prompts itself")
    assert path.read_text() == "a cat\n"
    beside = tmp_path / "out.jsonl.unfinished"
    beside.write_text('"a cat"\n')
    link = tmp_path / "link.jsonl"
    link.symlink_to(beside)
    result = run("screen", "--file", link, "--bundle", bundle_dir, "-o", tmp_path / "out.jsonl")
    failed(result, 2, "file of prompts itself")
    assert beside.read_text() == '"a cat"\n'


def test_a_mistake_leaves_older_results_alone(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    output.write_text("older results")
    args = ("screen", "--bundle", bundle_dir, "--output", output)
    failed(run(*args, "a cat", "--noises", 99), 2)
    failed(run(*args, "--file", tmp_path / "missing.txt"), 2)
    assert output.read_text() == "older results"
    result = run(*args, "a cat")
    assert result.code == 5
    assert f"note: 1 prompt in {output}: 0 judged, 0 flagged.\n" in result.err
    assert json.loads(output.read_text())["prompt"] == "a cat"


def test_a_mistake_late_in_a_file_leaves_older_results_alone(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path
) -> None:
    fake(lambda _: 0.1)
    output, prompts = tmp_path / "out.csv", tmp_path / "p.jsonl"
    output.write_text("older results")
    prompts.write_text("".join(f'"cat {i}"\n' for i in range(99)) + "\0\n")
    args = ("screen", "--bundle", bundle_dir, "--output", output, "--file", prompts)
    result = run(*args)
    failed(result, 2, "p.jsonl, line 100")
    unfinished = tmp_path / "out.csv.unfinished"
    assert f"note: the first 96 results are in {unfinished}, and {output} is what" in result.err
    assert output.read_text() == "older results"
    with unfinished.open(newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == [f"cat {i}" for i in range(96)]
    prompts.write_text('"a cat"\n')
    assert run(*args).code == 5
    assert not unfinished.exists()
    assert "a cat" in output.read_text()


@pytest.mark.parametrize("kind", ["json", "csv", "table"])
def test_a_row_that_cannot_be_screened_is_an_error_of_its_own(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path, kind: str
) -> None:
    fake(lambda _: 0.1)
    calibration = calibrate(bundle_dir, 0.5, tmp_path / "c.json", backend="fake")
    rows = [f"cat {i}" for i in range(70)]
    rows[40], rows[69] = "x" * 100_001, 7
    prompts, output = tmp_path / "p.jsonl", tmp_path / "out"
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    args = ("--bundle", bundle_dir, "--calibration", calibration, "--format", kind)
    result = run("screen", "--file", prompts, *args, "-o", output)
    assert result.code == 5, result  # 68 clean ones do not make the file clean
    assert f"note: 70 prompts in {output}: 68 judged, 0 flagged.\n" in result.err
    reasons = "longer than 100,000 characters", "neither text nor an object"
    for reason in reasons:
        assert f"note: 1 prompt cannot be screened ({reason}): an `error`" in result.err
    text = output.read_text()
    if kind == "table":
        lines = text.splitlines()[1:]
        assert [lines[k].split()[2] for k in (39, 40, 68, 69)] == ["clean", "error"] * 2
        assert lines[69].endswith(f"7 ({reasons[1]})")
        return
    found = (
        [json.loads(line) for line in text.splitlines()]
        if kind == "json"
        else list(csv.DictReader(io.StringIO(text, newline="")))
    )
    assert all(list(row) == KEYS for row in found)
    assert [row["prompt"] for row in found] == list(map(str, rows))
    assert [k for k, row in enumerate(found) if row["error"]] == [40, 69]
    assert [found[k]["error"] for k in (40, 69)] == list(reasons)
    assert {str(found[k]["memorized"] or None) for k in (40, 69)} == {"None"}


def test_a_file_of_which_no_row_can_be_screened(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    prompts, output = tmp_path / "p.jsonl", tmp_path / "out.csv"
    output.write_text("older results")
    prompts.write_text("7\n8\n")
    result = run("screen", "--file", prompts, "--bundle", bundle_dir, "-o", output)
    failed(result, 2, "None of the 2 prompts of", "The first: ")
    assert output.read_text() == "older results"


def test_control_characters_never_reach_the_terminal(run: Run, bundle_dir: Path) -> None:
    prompts = ["\x1b[31mred\x1b[0m", "bell\x07", "a\rb", "a\nb", "\x9b2J", "\u202eback", "tab\tbed"]
    result = run(
        *("screen", "--file", "-", "--bundle", bundle_dir),
        stdin="\n".join(p for p in prompts if "\n" not in p).encode(),
    )
    assert result.code == 5
    result = run("screen", *prompts, "--bundle", bundle_dir)
    assert result.code == 5
    assert len(result.out.splitlines()) == 1 + len(prompts)
    assert all(c.isprintable() or c == "\n" for c in result.out)
    for shown in (r"\x1b[31mred\x1b[0m", r"bell\x07", r"a\rb", r"a\nb", r"\x9b2J", r"\u202eback"):
        assert shown in result.out
    result = run("screen", *prompts, "--bundle", bundle_dir, "--format", "json")
    assert [row["prompt"] for row in result.rows] == prompts
    assert all(c.isprintable() or c == "\n" for c in result.out)


def test_a_prompt_of_too_many_chunks_is_an_error_of_its_row(
    run: Run, open_dir: Path, tmp_path: Path
) -> None:
    prompts, long = tmp_path / "p.txt", "word " * 4000
    args = ("screen", "--file", prompts, "--bundle", open_dir, "--chunks", "--format", "json")
    prompts.write_text(f"a cat\n{long}\na dog\n")
    result = run(*args)
    assert result.code == 5, result
    assert [row["error"] for row in result.rows] == [None, "too long to be read", None]
    assert result.rows[0]["score"] > 0
    assert "1 prompt cannot be screened (too long to be read)" in result.err
    prompts.write_text(long)
    failed(run(*args), 2, "is read in ", "chunks of 75 tokens; 32 are accepted")


def test_csv_is_spelled_out_on_a_terminal_alone() -> None:
    for terminal, shown in ((True, r"\x9b2J"), (False, "\x9b2J")):
        file = io.StringIO()
        file.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        writer(Format.csv, file)(Broken("not JSON", "", "\x9b2J"))
        assert file.getvalue().splitlines()[1].startswith(f"{shown},")


def test_any_script_can_be_written_to_any_locale(bundle_dir: Path) -> None:
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}):
        result = shell("screen", "é 猫 😀", "--bundle", bundle_dir, **environment)
        assert result.code == 5
        assert "é 猫 😀" in result.out


def test_a_reader_that_has_seen_enough(bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a cat\n" * 500)
    calibration = calibrate(bundle_dir, 0.0, tmp_path / "c.json")
    args = command(
        *("screen", "--file", path, "--format", "json"),
        *("--bundle", bundle_dir, "--calibration", calibration),
    )
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["prompt"] == "a cat"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_reader_that_was_never_there(bundle_dir: Path) -> None:
    for args in (("inspect", bundle_dir, "--format", "json"), ("inspect", bundle_dir)):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                command(*args), stdout=writing, stderr=subprocess.PIPE, check=False
            )
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(bundle_dir: Path) -> None:
    args = ("screen", "a cat", "--bundle", bundle_dir)
    failed(shell(*args, "--output", "/dev/full"), 2, "/dev/full cannot be written: No space")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("inspect", bundle_dir), stdout=full, stderr=subprocess.PIPE, check=False
        )
    failed(
        Result(done.returncode, "", done.stderr.decode()), 3, "output cannot be", "No space left"
    )


def test_outputs_that_are_not_written(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    for ending in (".parquet", ".TSV"):
        output = tmp_path / f"results{ending}"
        result = run("screen", "a cat", "--bundle", bundle_dir, "--output", output)
        failed(result, 2, f"not written as {ending.lower()}", ".jsonl or .csv")
        assert not output.exists()
    failed(run("screen", "a cat", "--bundle", bundle_dir, "--column", "x"), 2, "are about --file")
    output = tmp_path / "results.xyz"
    failed(run("screen", "a cat", "--output", output), 2, "not written as .xyz", "--format")
    assert not output.exists()


def test_what_was_read_in_part_is_not_called_clean(run: Run) -> None:
    filler = " ".join(["cat"] * 75)
    done = run("screen", f"{filler} google icon of tokyo tower", "a cat")
    verdicts = [line[19:29] for line in done.out.splitlines()[1:]]
    assert verdicts == ["in part  +", "clean     "]
    assert done.code == 0
    assert "75 tokens, and 1 of the prompts had more" in done.err
    assert "in chunks does: --chunks, of a bundle exported with --any-length" in done.err


def test_chunks_are_not_advised_where_no_model_reads_them(run: Run) -> None:
    flow = ("--bundle", embedded.FLOW_BUNDLE)
    done = run("screen", " ".join(["cat"] * 90), *flow)
    assert "1 of the prompts had more" in done.err
    assert "diffusers pipeline does not read it either." in done.err
    refused = run("screen", "a cat", "--chunks", *flow)
    failed(refused, 2, "Stable Diffusion 3 is told of no other number", "Screen without chunks")
    assert "any-length" not in done.err + refused.err


def test_weights_that_are_read_literally_are_announced(run: Run) -> None:
    done = run("screen", "--format", "json", "a (tokyo tower:1.3) at night", "a cat")
    first, second = map(json.loads, done.out.splitlines())
    assert first["notes"][0].startswith("(tokyo tower:1.3) was read literally.")
    assert second["notes"] == []
    assert "note: 'a (tokyo tower:1.3) at night': (tokyo tower:1.3) was read literally." in done.err
    done = run("screen", "a (tokyo tower:1.3) at night", "a {red|blue} cat", "a cat")
    assert "note: 2 of the prompts hold signs that were read literally" in done.err
    assert "The first, 'a (tokyo tower:1.3) at night': (tokyo tower:1.3) was read" in done.err

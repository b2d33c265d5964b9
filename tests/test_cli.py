from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mnemoscope import Calibration, Detector, __version__, embedded
from mnemoscope.cli import main
from mnemoscope.embedded import EmbeddedPrompt
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.testing import FakeBackend

# for everything that needs a model or a bundle; one of them is enough here
one_model = pytest.mark.parametrize("model_dir", ["epsilon"], indirect=True, scope="session")

KEYS = ["prompt", "score", "scores", "threshold", "memorized", "backend", "bundle"]
PROMPTS = ["a cat, sitting", "rain", "eine Katze — 猫"]
COMMANDS = ["screen", "demo", "export", "inspect", "generate", "doctor"]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Result]
Fake = Callable[[Callable[[Any], float]], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, in this process."""

    def run(*args: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["mnemoscope", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert caught.value.code is None or isinstance(caught.value.code, int)
        return Result(caught.value.code or 0, out, err)

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Has every backend answer with a function of the token ids."""

    def use(magnitude: Callable[[Any], float]) -> None:
        monkeypatch.setattr(
            "mnemoscope_runtime.screening.open_backend", lambda *_, **__: FakeBackend(magnitude)
        )

    return use


def command(*args: object) -> list[str]:
    code = "from mnemoscope.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, args)]


def shell(*args: object, stdin: bytes = b"", **environment: str) -> Result:
    """The command line, in a process of its own."""
    done = subprocess.run(
        command(*args),
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def calibrate(bundle: Path, threshold: float, path: Path) -> Path:
    """A calibration of the bundle for one step and all its noises."""
    opened = Bundle.open(bundle)
    noises = opened.manifest.noise_bank.shape[0]
    Calibration(opened.id, 0.01, 100, ((threshold,),) * noises).write(path)
    return path


def copied(bundle: Path, to: Path) -> Path:
    shutil.copytree(bundle, to)
    return to


def damaged(bundle: Path, to: Path) -> Path:
    file = copied(bundle, to) / "screen.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return to


def failed(result: Result, code: int, *words: str) -> None:
    """One line of error that holds all words, and nothing else."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.endswith("\n")
    assert len(result.err.splitlines()) == 1, result.err
    for word in words:
        assert word in result.err


# version, help, usage


def test_the_version() -> None:
    assert shell("--version") == Result(0, f"mnemoscope {__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert f" {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(run: Run, name: str, flag: str) -> None:
    result = run(name, flag)
    assert result.code == 0
    assert f"Usage: mnemoscope {name} " in result.out
    assert result.err == ""


def test_the_help_of_screen_has_examples_and_exit_codes(run: Run) -> None:
    out = " ".join(run("screen", "--help").out.split())
    assert "Examples mnemoscope screen" in out
    assert "mnemoscope screen --file prompts.csv --format json --output results.jsonl" in out
    assert "0 nothing flagged, 1 something flagged, 2 usage, 3 environment" in out


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["--nonsense"],
        ["screen", "a", "--nonsense"],
        ["screen", "a", "--format", "xml"],
        ["screen", "a", "--noises", "many"],
        ["export", "model"],
        ["generate", "a cat"],
        ["generate", "a cat", "-o", "x.png", "--images", "0"],
        ["demo"],
    ],
)
def test_usage(run: Run, args: list[str]) -> None:
    result = run(*args)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: mnemoscope" in result.err


def test_usage_in_a_process_of_its_own() -> None:
    result = shell("screen", "--nonsense")
    assert result.code == 2
    assert "Traceback" not in result.err


# screen: exit codes and formats


@one_model
def test_nothing_is_flagged_without_a_threshold(bundle_dir: Path) -> None:
    result = shell("screen", "a cat", "rain", "--bundle", bundle_dir)
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        [line.split()[0], "-", *prompt.split()]
        for line, prompt in zip(result.out.splitlines()[1:], ["a cat", "rain"], strict=True)
    ]
    assert result.err.startswith("note: no threshold is known")
    assert len(result.err.splitlines()) == 1


@one_model
@pytest.mark.parametrize(
    ("threshold", "code", "verdict"), [(0.0, 1, "memorized"), (1e9, 0, "clean")]
)
def test_the_exit_code_tells_whether_something_was_flagged(
    bundle_dir: Path, tmp_path: Path, threshold: float, code: int, verdict: str
) -> None:
    path = calibrate(bundle_dir, threshold, tmp_path / "c.json")
    result = shell("screen", "a cat", "--bundle", bundle_dir, "--calibration", path)
    assert result.code == code
    header, row = result.out.splitlines()
    assert header.split() == ["magnitude", "verdict", "prompt"]
    assert row.split(maxsplit=2)[1:] == [verdict, "a cat"]
    assert result.err == ""


@one_model
def test_one_flagged_prompt_among_others_is_enough(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path
) -> None:
    magnitudes = iter([0.1, 0.9, 0.2])
    fake(lambda _: next(magnitudes))
    path = calibrate(bundle_dir, 0.5, tmp_path / "c.json")
    result = run("screen", *PROMPTS, "--bundle", bundle_dir, "--calibration", path)
    assert result.code == 1
    verdicts = [line.split()[1] for line in result.out.splitlines()[1:]]
    assert verdicts == ["clean", "memorized", "clean"]


@one_model
def test_the_bundles_own_calibration_is_used(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 0.0, bundle / "calibration.json")
    assert run("screen", "a cat", "--bundle", bundle).code == 1


@one_model
def test_a_setting_without_a_threshold_has_no_verdict(
    run: Run, bundle_dir: Path, tmp_path: Path
) -> None:
    path = calibrate(bundle_dir, 0.0, tmp_path / "c.json")
    result = run(
        *("screen", "a cat", "--steps", 2, "--format", "json"),
        *("--bundle", bundle_dir, "--calibration", path),
    )
    assert result.code == 0
    assert result.rows[0]["threshold"] is None
    assert result.rows[0]["memorized"] is None
    assert "note: no threshold is known" in result.err


@one_model
def test_json(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = calibrate(bundle_dir, 0.0, tmp_path / "c.json")
    result = run(
        *("screen", *PROMPTS, "--format", "json"),
        *("--bundle", bundle_dir, "--calibration", path),
    )
    with Detector.load(bundle_dir) as detector:
        expected = detector.screen(PROMPTS)
    assert [list(row) for row in result.rows] == [KEYS] * 3
    assert [row["prompt"] for row in result.rows] == PROMPTS
    assert "猫" in result.out  # as it is, not escaped
    for row, detection in zip(result.rows, expected, strict=True):
        assert row["score"] == pytest.approx(detection.score, rel=1e-5)
        assert row["scores"] == pytest.approx(list(detection.scores), rel=1e-5)
        assert row["threshold"] == 0.0
        assert row["memorized"] is True
        assert row["backend"] == "onnxruntime"
        assert row["bundle"] == Bundle.open(bundle_dir).id


@one_model
def test_csv(run: Run, bundle_dir: Path) -> None:
    prompts = ['a "quoted", one', "two\nlines"]
    result = run("screen", *prompts, "--format", "csv", "--bundle", bundle_dir)
    rows = list(csv.DictReader(io.StringIO(result.out, newline="")))
    assert [list(row) for row in rows] == [KEYS] * 2
    assert [row["prompt"] for row in rows] == prompts
    for row in rows:
        scores = [float(score) for score in row["scores"].split()]
        assert len(scores) == 3
        assert float(row["score"]) == pytest.approx(sum(scores) / 3, rel=1e-5)
        assert row["threshold"] == row["memorized"] == ""


@one_model
def test_noises_and_threads(run: Run, bundle_dir: Path) -> None:
    rows = run(
        *("screen", "a cat", "--format", "json", "--bundle", bundle_dir),
        *("--noises", 2, "--threads", 1),
    ).rows
    assert len(rows[0]["scores"]) == 2


@one_model
@pytest.mark.parametrize(
    ("name", "format_", "kind"),
    [
        ("out.json", None, "json"),
        ("out.jsonl", None, "json"),
        ("OUT.CSV", None, "csv"),
        ("out.txt", None, "table"),
        ("out", None, "table"),
        ("out.csv", "json", "json"),
        ("out.json", "table", "table"),
    ],
)
def test_the_format_of_a_file(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str, format_: str | None, kind: str
) -> None:
    args = () if format_ is None else ("--format", format_)
    path = tmp_path / name
    result = run("screen", *PROMPTS, "--bundle", bundle_dir, "--output", path, *args)
    assert (result.code, result.out) == (0, "")
    text = path.read_text("utf-8")
    first = text.splitlines()[0]
    if kind == "json":
        assert [json.loads(line)["prompt"] for line in text.splitlines()] == PROMPTS
    elif kind == "csv":
        assert first == ",".join(KEYS)
        assert [row["prompt"] for row in csv.DictReader(io.StringIO(text))] == PROMPTS
    else:
        assert first.split() == ["magnitude", "verdict", "prompt"]
        assert [line[22:] for line in text.splitlines()[1:]] == PROMPTS


# screen: where prompts come from


@one_model
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
    assert result.code == 0
    assert [row["prompt"] for row in result.rows] == PROMPTS


@one_model
def test_standard_input_in_a_process_of_its_own(bundle_dir: Path) -> None:
    result = shell(
        *("screen", "-f", "-", "--format", "json", "--bundle", bundle_dir),
        stdin="\n".join(PROMPTS).encode(),
        PYTHONIOENCODING="ascii",
    )
    assert [row["prompt"] for row in result.rows] == PROMPTS


@one_model
def test_the_column_of_a_file(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,Title\nno,yes\n")
    args = ("screen", "--file", path, "--bundle", bundle_dir, "--format", "json")
    assert run(*args, "--column", "title").rows[0]["prompt"] == "yes"
    failed(run(*args, "--column", "url"), 2, "no column url", "Name the column with --column")


@one_model
def test_a_file_without_prompts(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n\n")
    result = run(
        *("screen", "--file", tmp_path / "p.txt", "--bundle", bundle_dir, "--format", "json")
    )
    assert result == Result(0, "", "")


def test_neither_prompts_nor_a_file(run: Run) -> None:
    failed(run("screen"), 2, "Nothing to screen", "--file")


def test_both_prompts_and_a_file(run: Run) -> None:
    failed(run("screen", "a cat", "--file", "p.txt"), 2, "not both")


@one_model
def test_an_empty_prompt_is_a_prompt(run: Run, bundle_dir: Path) -> None:
    result = run("screen", "", "--bundle", bundle_dir, "--format", "json")
    assert result.code == 0
    assert result.rows[0]["prompt"] == ""
    assert result.rows[0]["score"] == pytest.approx(0, abs=1e-3)  # it differs from itself by none


@one_model
def test_a_megabyte_of_prompt(bundle_dir: Path) -> None:
    result = shell("screen", "--file", "-", "--bundle", bundle_dir, stdin=b"x" * 1_000_000)
    failed(result, 2, "1,000,000 characters", "Cut the prompt")
    assert len(result.err) < 300


@one_model
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\0c\n", "line 2: contains a NUL byte"),
        (b"a\n\xe9\n", "line 2: not UTF-8"),
        ("a\n".encode("utf-16"), "line 1: not UTF-8"),
    ],
    ids=["nul", "latin1", "utf16"],
)
def test_files_that_are_not_text(
    run: Run, bundle_dir: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    failed(run("screen", "--file", path, "--bundle", bundle_dir), 2, words)
    failed(run("screen", "--file", "-", "--bundle", bundle_dir, stdin=content), 2, words)


@one_model
@pytest.mark.parametrize("name", ["missing.txt", "p.docx", ""])
def test_files_that_cannot_be_read(run: Run, bundle_dir: Path, tmp_path: Path, name: str) -> None:
    failed(run("screen", "--file", tmp_path / name, "--bundle", bundle_dir), 2, str(tmp_path))


@one_model
def test_a_prompt_that_is_not_unicode(bundle_dir: Path) -> None:
    done = subprocess.run(
        [os.fsencode(arg) for arg in command("screen", "--bundle", bundle_dir)] + [b"caf\xe9"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    failed(Result(done.returncode, done.stdout.decode(), done.stderr.decode()), 2, "not valid")


@one_model
def test_a_hundred_thousand_prompts_are_streamed(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path
) -> None:
    calls, blocks = 0, []

    def magnitude(_: object) -> float:
        nonlocal calls
        calls += 1
        if calls % 10_000 == 0:
            blocks.append(sys.getallocatedblocks())
        return 0.5

    fake(magnitude)
    path, output = tmp_path / "p.txt", tmp_path / "out.jsonl"
    with path.open("w") as file:
        file.writelines(f"number {i}\n" for i in range(100_000))
    before = sys.getallocatedblocks()
    result = run("screen", "--file", path, "--bundle", bundle_dir, "--output", output)
    assert result.code == 0
    assert len(blocks) == 10
    assert max(blocks) - before < 80_000  # less than one block of memory for each prompt
    with output.open() as file:
        assert sum(1 for _ in file) == 100_000


# screen: output


@one_model
@pytest.mark.parametrize("name", ["missing/out.json", "."])
def test_an_output_that_cannot_be_written(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    result = run("screen", "a cat", "--bundle", bundle_dir, "--output", tmp_path / name)
    failed(result, 2, "cannot be written", "Choose another --output")


@one_model
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


@one_model
def test_a_mistake_leaves_older_results_alone(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    output.write_text("older results")
    args = ("screen", "--bundle", bundle_dir, "--output", output)
    failed(run(*args, "a cat", "--noises", 99), 2)
    failed(run(*args, "--file", tmp_path / "missing.txt"), 2)
    assert output.read_text() == "older results"
    assert run(*args, "a cat").code == 0
    assert json.loads(output.read_text())["prompt"] == "a cat"


@one_model
def test_control_characters_never_reach_the_terminal(run: Run, bundle_dir: Path) -> None:
    prompts = ["\x1b[31mred\x1b[0m", "bell\x07", "a\rb", "a\nb", "\x9b2J", "\u202eback", "tab\tbed"]
    result = run(
        *("screen", "--file", "-", "--bundle", bundle_dir),
        stdin="\n".join(p for p in prompts if "\n" not in p).encode(),
    )
    assert result.code == 0
    result = run("screen", *prompts, "--bundle", bundle_dir)
    assert result.code == 0
    assert len(result.out.splitlines()) == 1 + len(prompts)
    assert all(c.isprintable() or c == "\n" for c in result.out)
    for shown in (r"\x1b[31mred\x1b[0m", r"bell\x07", r"a\rb", r"a\nb", r"\x9b2J", r"\u202eback"):
        assert shown in result.out


@one_model
def test_any_script_can_be_written_to_any_locale(bundle_dir: Path) -> None:
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}):
        result = shell("screen", "é 猫 😀", "--bundle", bundle_dir, **environment)
        assert result.code == 0
        assert "é 猫 😀" in result.out


@one_model
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
    assert process.returncode == 0


@one_model
def test_a_reader_that_was_never_there(bundle_dir: Path) -> None:
    for args in (("inspect", bundle_dir, "--json"), ("inspect", bundle_dir)):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                command(*args), stdout=writing, stderr=subprocess.PIPE, check=False
            )
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@one_model
def test_a_full_disk(bundle_dir: Path) -> None:
    args = ("screen", "a cat", "--bundle", bundle_dir)
    failed(shell(*args, "--output", "/dev/full"), 2, "/dev/full cannot be written: No space")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("inspect", bundle_dir), stdout=full, stderr=subprocess.PIPE, check=False
        )
    failed(Result(done.returncode, "", done.stderr.decode()), 3, "No space left")


# screen: settings, bundles, calibrations, backends


@one_model
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--noises", "0"], "Give 1 to 3"),
        (["--noises", "-1"], "Give 1 to 3"),
        (["--noises", "4"], "Give 1 to 3"),
        (["--steps", "0"], "Give 1 to 50"),
        (["--steps", "51"], "Give 1 to 50"),
        (["--threads", "0"], "Give 1 or more"),
        (["--backend", "abacus"], "Choose one of: onnxruntime"),
        (["--backend", ""], "Choose one of: onnxruntime"),
    ],
)
def test_settings_out_of_range(run: Run, bundle_dir: Path, args: list[str], words: str) -> None:
    failed(run("screen", "a cat", "--bundle", bundle_dir, *args), 2, words)


@one_model
def test_a_broken_bundle(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    broken = damaged(bundle_dir, tmp_path / "broken")
    result = shell("screen", "a cat", "--bundle", broken)
    failed(result, 4, "screen.onnx differs from what the manifest promises")
    (broken / "screen.onnx").unlink()
    failed(run("screen", "a cat", "--bundle", broken), 4, "screen.onnx is missing")
    (broken / "manifest.json").write_text('{"kind": "mnemoscope-bundle", "schema": 99}')
    failed(run("screen", "a cat", "--bundle", broken), 4, "schema 99")
    (broken / "manifest.json").write_text("{")
    failed(run("screen", "a cat", "--bundle", broken), 4, "damaged")
    failed(run("screen", "a cat", "--bundle", tmp_path), 4, "has no manifest.json")
    failed(run("screen", "a cat", "--bundle", tmp_path / "none"), 4, "does not exist")


@one_model
def test_the_calibration_of_another_bundle(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    Calibration("f" * 64, 0.01, 100, ((0.1,),)).write(path)
    args = ("screen", "a cat", "--bundle", bundle_dir, "--calibration", path)
    failed(shell(*args), 4, "made on bundle ffffffffffff")
    path.write_text("{}")
    failed(run(*args), 4, "no calibration of this version")
    path.write_text("{")
    failed(run(*args), 4, "damaged")
    path.unlink()
    failed(run(*args), 4, "cannot be read")


@one_model
def test_a_backend_that_is_not_installed(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    failed(
        run("screen", "a cat", "--bundle", bundle_dir),
        3,
        "backend 'onnxruntime' cannot be used",
        "pip install 'mnemoscope[onnxruntime]'",
    )


@one_model
def test_a_backend_that_is_not_installed_in_a_process_of_its_own(bundle_dir: Path) -> None:
    code = "import sys; sys.modules['onnxruntime'] = None; from mnemoscope.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "screen", "a cat", "--bundle", bundle_dir],
        capture_output=True,
        check=False,
    )
    failed(Result(done.returncode, done.stdout.decode(), done.stderr.decode()), 3, "pip install")


@one_model
def test_a_magnitude_that_is_no_number(run: Run, fake: Fake, bundle_dir: Path) -> None:
    fake(lambda _: float("nan"))
    failed(run("screen", "a cat", "--bundle", bundle_dir), 3, "NaN or infinite")


# errors


def test_an_error_is_one_printable_line(run: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "two\nlines \x1b[31mred"
    result = run("screen", "a cat", "--bundle", bundle)
    failed(result, 4, r"two lines \x1b[31mred does not exist")
    assert all(c.isprintable() for c in result.err[:-1])


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ZeroDivisionError("a defect"), 3, "Traceback"),
        (OSError(5, "Input/output error"), 3, "error: [Errno 5] Input/output error\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_nobody_foresaw_does_not_read_as_flagged(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    shown: str,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Detector, "load", load)
    monkeypatch.setattr("mnemoscope.cli._drop_stdout", lambda: None)
    result = run("screen", "a cat")
    assert result.code == code
    assert result.err.startswith(shown)


# inspect


@one_model
def test_inspect(bundle_dir: Path) -> None:
    result = shell("inspect", bundle_dir)
    assert (result.code, result.err) == (0, "")
    opened = Bundle.open(bundle_dir)
    rows = [line.split("  ", 1) for line in result.out.splitlines()]
    shown = {row[0]: row[-1].strip() for row in rows}
    assert shown["bundle"] == opened.id
    assert shown["weights"] == opened.manifest.model.weights_sha256
    assert shown["model"] == "epsilon (sd1, epsilon)"
    assert shown["noise bank"] == "(3, 4, 8, 8), seed 7"
    assert shown["calibration"] == "none"
    assert set(opened.manifest.files) <= set(shown)
    assert {f"parity of {graph}" for graph in opened.manifest.graphs} <= set(shown)
    assert rows[-1] == ["every file is what the manifest promises"]


@one_model
def test_inspect_json(run: Run, bundle_dir: Path) -> None:
    result = run("inspect", bundle_dir, "--json")
    assert result.code == 0
    shown = json.loads(result.out)
    assert shown.pop("id") == Bundle.open(bundle_dir).id
    assert shown == json.loads((bundle_dir / "manifest.json").read_bytes())


@one_model
def test_inspect_shows_the_calibration(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 0.5, bundle / "calibration.json")
    assert "FPR 0.01 on 100 benign prompts" in run("inspect", bundle).out
    Calibration("f" * 64, 0.01, 100, ((0.1,),)).write(bundle / "calibration.json")
    failed(run("inspect", bundle), 4, "made on bundle ffffffffffff")


@one_model
@pytest.mark.parametrize("args", [(), ("--json",)])
def test_inspect_of_a_damaged_bundle(
    run: Run, bundle_dir: Path, tmp_path: Path, args: tuple[str, ...]
) -> None:
    broken = damaged(bundle_dir, tmp_path / "broken")
    failed(run("inspect", broken, *args), 4, "differs from what the manifest promises")
    failed(run("inspect", tmp_path, *args), 4, "has no manifest.json")


@one_model
@pytest.mark.parametrize("name", ["\x1b[31mred\x07", "[red]markup[/]", "[/nonsense]"])
def test_inspect_trusts_no_text_of_a_bundle(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    file = copied(bundle_dir, tmp_path / "bundle") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["model"]["id"] = name
    manifest["tools"] = {name: name}
    file.write_text(json.dumps(manifest))
    shown = name.replace("\x1b", r"\x1b").replace("\x07", r"\x07")
    result = run("inspect", file.parent)
    assert result.code == 0
    assert f"{shown} (sd1, epsilon)" in result.out
    assert all(c.isprintable() or c == "\n" for c in result.out)


# doctor


@one_model
def test_doctor_where_a_backend_works(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    result = run("doctor")
    assert result.code == 0
    assert "backend onnxruntime: works\n" in result.out
    assert f"mnemoscope {__version__}, Python 3." in result.out


@one_model
def test_doctor_where_none_works(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    monkeypatch.setattr("mnemoscope.cli.doctor.version", version)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("doctor")
    assert result.code == 3
    assert "backend onnxruntime: The backend 'onnxruntime' cannot be used" in result.out
    assert "pip install 'mnemoscope[onnxruntime]'" in " ".join(result.out.split())
    assert [line.split() for line in result.out.splitlines() if line.startswith(" torch")] == [
        ["torch", "not", "installed"]
    ]


@one_model
def test_doctor_sees_packages_that_overwrite_each_other(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    assert "overwrite each other" not in run("doctor").out
    monkeypatch.setattr("mnemoscope.cli.doctor.version", lambda _: "1.2.3")
    assert "overwrite each other" in run("doctor").out


# demo


@one_model
def test_demo(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_prompts(*splits: str) -> list[EmbeddedPrompt]:
        kinds: dict[str, Any] = {"memorized": 1, "seen": 0, "held_out": 0}
        return [
            EmbeddedPrompt(f"{kind} {i}", kind, tone=False)  # type: ignore[arg-type]
            for kind in kinds
            if kind in splits
            for i in range(12)
        ]

    magnitudes = iter([0.9] * 12 + [0.1] * 24)
    fake(lambda _: next(magnitudes))
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    monkeypatch.setattr("mnemoscope.cli.demo.read_prompts", read_prompts)
    output = tmp_path / "new" / "demo"
    result = run("demo", "--output", output)
    assert result.code == 0, result.err
    assert "AUC 1.000 [1.000, 1.000]" in result.out
    assert "12 memorised against 24 others" in result.out
    assert Image.open(output / "demo.png").format == "PNG"
    assert len(json.loads((output / "demo.json").read_bytes())["detections"]) == 36


def test_a_demo_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed(run("demo", "--output", tmp_path / "file"), 2, "cannot be written")


# export


@one_model
def test_export_and_screen(run: Run, model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundles" / "mine"
    result = shell("export", model_dir, out, "--noises", 2, "--inference-steps", 20, "--seed", 3)
    assert result.code == 0, result.err
    bundle = Bundle.open(out)
    assert result.out == f"{out}  {bundle.id[:12]}\n"
    for graph in ("text_encoder", "step", "screen"):
        assert f"\n{graph}: relative error " in result.err
    assert bundle.manifest.noise_bank.shape[0] == 2
    assert bundle.manifest.noise_bank.seed == 3
    assert bundle.manifest.scheduler.inference_steps == 20
    row = run("screen", "a cat", "--bundle", out, "--format", "json").rows[0]
    assert row["bundle"] == bundle.id
    assert len(row["scores"]) == 2
    assert row["score"] > 0


@one_model
def test_export_to_a_path_that_exists(run: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for args in ((), ("--overwrite",)):
        result = run("export", model_dir, tmp_path, *args)
        assert result.code == 3
        assert result.out == ""
        assert result.err.splitlines()[-1].startswith(f"error: {tmp_path} ")
        assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_export_of_a_directory_that_is_no_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("export", tmp_path / "empty", tmp_path / "out")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines()[-1].startswith("error: ")
    assert "has no model_index.json" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_export_with_a_noise_bank_that_is_too_large(run: Run, tmp_path: Path) -> None:
    failed(run("export", tmp_path, tmp_path / "out", "--noises", 65), 2, "1 to 64 noises")


def test_export_without_pytorch(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("export", tmp_path, tmp_path / "out")
    failed(result, 3, "Exporting needs PyTorch and ONNX", "pip install 'mnemoscope[export]'")


# generate


@one_model
def test_generate_is_reproducible_by_its_seed(run: Run, model_dir: Path, tmp_path: Path) -> None:
    def draw(name: str, *args: object) -> Image.Image:
        path = tmp_path / name
        result = run("generate", "a cat", "-o", path, "--model", model_dir, "--steps", 2, *args)
        assert result.code == 0, result.err
        assert result.out == f"{path}\n"
        with Image.open(path) as image:
            return image.convert("RGB")

    first, again = draw("1.png", "--seed", 5), draw("2.png", "--seed", 5)
    assert first.size == (16, 16)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != draw("3.png", "--seed", 6).tobytes()
    pair = draw("4.png", "--seed", 5, "--images", 2, "--scale", 3)
    assert pair.size == (96, 48)
    left = pair.crop((0, 0, 48, 48)).resize((16, 16), Image.Resampling.NEAREST)
    difference = [abs(a - b) for a, b in zip(left.tobytes(), first.tobytes(), strict=True)]
    assert max(difference) <= 2  # a batch of two rounds a little differently


@one_model
@pytest.mark.parametrize("name", ["x.nonsense", "missing/x.png", "x"])
def test_an_image_that_cannot_be_written(
    run: Run, model_dir: Path, tmp_path: Path, name: str
) -> None:
    result = run("generate", "a cat", "-o", tmp_path / name, "--model", model_dir, "--steps", 1)
    assert result.code == 2
    assert "cannot be written" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "args",
    [
        ("--steps", 0),
        ("--steps", 1000),
        ("--seed", -1),
        ("--seed", 2**64),
        ("--seed", 2**64 - 1, "--images", 2),
    ],
)
def test_what_cannot_be_drawn(run: Run, tmp_path: Path, args: tuple[object, ...]) -> None:
    failed(run("generate", "a cat", "-o", tmp_path / "x.png", *args), 2, "seed")


def test_generate_without_pytorch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("generate", "a cat", "-o", tmp_path / "x.png")
    failed(result, 3, "Drawing needs PyTorch", "pip install 'mnemoscope[torch]'")
    assert not (tmp_path / "x.png").exists()


@one_model
def test_generate_with_a_model_that_is_not_whole(run: Run, model_dir: Path, tmp_path: Path) -> None:
    model = copied(model_dir, tmp_path / "model")
    shutil.rmtree(model / "vae")
    for folder in (model, tmp_path, tmp_path / "none"):
        result = run("generate", "a cat", "-o", tmp_path / "x.png", "--model", folder)
        assert (result.code, result.out) == (3, "")
        assert result.err.splitlines()[-1].startswith(f"error: {folder} ")
        assert "Traceback" not in result.err

"""`mnemoscope audit`, on the embedded model and real engines."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit_support import rows, text
from cli_support import Result, Run, command, failed

from mnemoscope import Calibration, CalibrationFile, embedded
from mnemoscope.cli import main

pytestmark = pytest.mark.slow  # one is killed, in a process of its own

MEMORISED = [row.prompt for row in embedded.read_prompts("memorized")][:60]
OTHERS = [row.prompt for row in embedded.read_prompts("held_out")][:120]
HOSTILE = ["<script>alert(1)</script>", "\x1b[31m\x01", ""]


@dataclass(frozen=True)
class Place:
    """A calibration, a list, and what an audit that nothing disturbs makes of it."""

    calibration: Path
    prompts: Path
    results: bytes
    report: bytes
    said: Result


def arguments(place: Path, calibration: Path, prompts: Path) -> list[object]:
    return [
        *("audit", prompts, "--calibration", calibration, "--noises", 1, "--threads", 1),
        *("--output", place / "r.csv", "--report", place / "r.html"),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("audit")
    [shipped] = [
        each
        for each in CalibrationFile.read(embedded.BUNDLE / "calibration.json").calibrations
        if each.setting.detector == "magnitude"
        and (each.setting.backend, each.setting.steps, each.setting.noises) == ("onnxruntime", 1, 1)
    ]
    part = dict(zip(shipped.prompts[:200], shipped.scores[:200], strict=True))
    calibration = folder / "c.json"
    CalibrationFile((Calibration.of(shipped.setting, part, fpr=0.05),)).write(calibration)
    prompts = text(folder / "p.jsonl", [*MEMORISED, *OTHERS, *HOSTILE])
    out, err = io.StringIO(), io.StringIO()
    argv = ["mnemoscope", *map(str, arguments(folder, calibration, prompts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1, err.getvalue()
    results, report = ((folder / name).read_bytes() for name in ("r.csv", "r.html"))
    said = Result(1, out.getvalue(), err.getvalue())
    return Place(calibration, prompts, results, report, said)


def test_memorised_prompts_are_flagged(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(place.results)
    table = rows(path)
    flags = [row["flagged"] for row in table]
    assert len(flags) == len(MEMORISED) + len(OTHERS) + len(HOSTILE)
    assert sum(flags[: len(MEMORISED)]) > 30
    assert sum(flags[len(MEMORISED) : -1]) < 0.15 * sum(flags[:-1])
    assert flags[-1] is None
    assert table[-1]["error"].startswith("empty")
    scores = [(row["score"], row["flagged"]) for row in table[:-1]]
    assert min(s for s, flag in scores if flag) > max(s for s, flag in scores if not flag)
    assert b"<script>" not in place.report


def test_what_it_says(place: Place) -> None:
    verdict, results, report = place.said.out.splitlines()
    assert "of 182 distinct prompts flagged, in" in verdict
    assert verdict.endswith("at a false-discovery rate of 0.05; 1 row not screened")
    folder = place.prompts.parent
    assert results == f"results {folder / 'r.csv'}"
    assert report == f"report {folder / 'r.html'}"
    read, unscreened, limited, begun = place.said.err.splitlines()
    assert read.endswith("p.jsonl: 183 prompts; 1 of them empty or white space.")
    assert unscreened.startswith("note: 1 prompt cannot be screened (empty")
    assert limited.startswith("note: With 200 benign prompts no p-value is below 0.005.")
    assert begun == "note: screening prompts: 182 to do."


def test_nothing_flagged(run: Run, place: Place, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("\n".join(OTHERS[:40]))
    options = ["--calibration", place.calibration, "--noises", 1]
    result = run("audit", prompts, "-o", tmp_path / "r.parquet", *options, "--dependent")
    assert result.code == 0
    assert result.out.startswith("0 of 40 distinct prompts flagged, in 0 groups")
    assert [row["flagged"] for row in rows(tmp_path / "r.parquet")] == [False] * 40


def test_a_killed_audit_goes_on_to_the_same_bytes(run: Run, place: Place, tmp_path: Path) -> None:
    args = arguments(tmp_path, place.calibration, place.prompts)
    journal = tmp_path / "r.csv.partial"
    process = subprocess.Popen(command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 2:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    assert not (tmp_path / "r.csv").exists()
    before = journal.read_bytes().count(b"\n") - 1
    assert 2 <= before < 182 / 32
    journal.write_bytes(journal.read_bytes()[:-7])  # and a torn end
    result = run(*args)
    assert result.code == 1
    assert "note: going on after " in result.err
    assert (tmp_path / "r.csv").read_bytes() == place.results
    assert (tmp_path / "r.html").read_bytes() == place.report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.html"]


@pytest.mark.parametrize(
    ("size", "ending"), [(1500, ".csv"), (7000, ".csv"), (7000, ".jsonl"), (7000, ".parquet")]
)
def test_a_full_disk(run: Run, place: Place, tmp_path: Path, size: int, ending: str) -> None:
    """Files may grow to `size` bytes; the journal takes 5,000, results more."""
    output = tmp_path / f"r{ending}"
    args = ["audit", place.prompts, "--calibration", place.calibration, "--noises", 1]
    args += ["--threads", 1, "-o", output]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        done = run(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2, done
    *_, error = done.err.splitlines()
    assert error.startswith("error: ")
    assert "cannot be written: " in error
    assert "The same command goes on" in error
    assert [path.name for path in tmp_path.iterdir()] == [f"r{ending}.partial"]
    result = run(*args)
    assert result.code == 1
    assert "note: going on after " in result.err
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    (tmp_path / "whole.csv").write_bytes(place.results)
    assert rows(output) == rows(tmp_path / "whole.csv")


def test_errors(run: Run, place: Place, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    options = ["--calibration", place.calibration]
    failed(
        run("audit", place.prompts, "-o", output, *options),  # of one noise, not of all
        *(4, "no calibration of magnitude at 1 step on 4 noises", "mnemoscope calibrate"),
    )
    options += ["--noises", "1"]
    failed(run("audit", "-", "-o", output, *options), 2, "save them to a file")
    failed(run("audit", tmp_path / "no.txt", "-o", output, *options), 2, "There is no file")
    failed(run("audit", place.prompts, "-o", tmp_path / "r.html", *options), 2, ".parquet")
    failed(run("audit", place.prompts, "-o", output, *options, "--fdr", 2), 2, "between 0 and 1")
    assert not list(tmp_path.iterdir())


def test_one_file_is_audited(run: Run, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "r.csv")
    failed(run("audit", "a.csv", "b.csv", *out), 2, "2 files were given. Join them", "{000..009}")
    failed(run("audit", tmp_path / "*.csv", *out), 2, "no file or folder", "join several")


def test_a_folder_that_is_not_there(run: Run, place: Place, tmp_path: Path) -> None:
    args = ["--calibration", place.calibration, "--noises", 1, "-o", tmp_path / "no" / "r.csv"]
    result = run("audit", place.prompts, *args)
    assert result.code == 2
    assert f"--output {tmp_path / 'no' / 'r.csv'} cannot be written: there is no" in result.err


def test_a_foreign_journal(run: Run, place: Place, tmp_path: Path) -> None:
    args = arguments(tmp_path, place.calibration, place.prompts)
    journal = tmp_path / "r.csv.partial"
    journal.write_text("mine\n")
    result = run(*args)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"error: {journal} is no journal of an audit.")
    assert journal.read_text() == "mine\n"
    assert run(*args, "--restart").code == 1
    assert (tmp_path / "r.csv").read_bytes() == place.results
    assert not journal.exists()

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Fake, Result, Run, command, damaged, failed, foreign

from mnemoscope import Detector, embedded
from mnemoscope_runtime import Bundle

CARRY = ("calibration", "carry", "--to")

# screen: settings, bundles, calibrations, backends


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--noises", "0"], "Give 1 to 3"),
        (["--noises", "-1"], "Give 1 to 3"),
        (["--noises", "4"], "Give 1 to 3"),
        (["--steps", "0"], "Give 1 to 50"),
        (["--steps", "51"], "Give 1 to 50"),
        (["--threads", "0"], "Give 1 or more"),
        (["--threads", "100000"], "100,000 threads would"),
        (["--backend", "abacus"], "Choose one of: onnxruntime"),
        (["--backend", ""], "Choose one of: onnxruntime"),
    ],
)
def test_settings_out_of_range(run: Run, bundle_dir: Path, args: list[str], words: str) -> None:
    failed(run("screen", "a cat", "--bundle", bundle_dir, *args), 2, words)


def test_a_broken_bundle(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    broken = damaged(bundle_dir, tmp_path / "broken")
    result = run("screen", "a cat", "--bundle", broken)
    failed(result, 4, "screen.onnx differs from what the manifest promises")
    (broken / "screen.onnx").unlink()
    failed(run("screen", "a cat", "--bundle", broken), 4, "screen.onnx is missing")
    (broken / "manifest.json").write_text('{"kind": "mnemoscope-bundle", "schema": 99}')
    failed(run("screen", "a cat", "--bundle", broken), 4, "schema 99")
    (broken / "manifest.json").write_text("{")
    failed(run("screen", "a cat", "--bundle", broken), 4, "damaged")
    failed(run("screen", "a cat", "--bundle", tmp_path), 4, "has no manifest.json")
    failed(run("screen", "a cat", "--bundle", tmp_path / "none"), 4, "does not exist")


def test_a_bundle_that_is_not_there_is_missed_before_its_files(run: Run, tmp_path: Path) -> None:
    missing, benign = tmp_path / "none", tmp_path / "benign.txt"
    benign.write_text("a cat")
    for args in (("calibrate", missing, "--benign", benign), (*CARRY, "openvino", missing)):
        failed(run(*args), 4, "none does not exist, so it is not a bundle")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("demo", "--output"), "[plot]'` in a copy of the repository."),
        (("bench", "--output"), "[bench]'` in a copy of the repository, or leave out --output."),
        (("calibrate", "--benign", embedded.LEXICON, "-o", "c.json", "--plot"), "leave out --plot"),
        (("mitigate", "--compare", "--output"), "[plot]'` in a copy of the repository."),
    ],
)
def test_what_could_not_be_plotted_is_not_measured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[object, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(Bundle, "open", lambda *_, **__: pytest.fail("a bundle was opened"))
    failed(run(*args, "out.png" if "--plot" in args else "out"), 3, "Plots need matplotlib", words)
    assert list(tmp_path.iterdir()) == []


# what belongs to the installation stays as it is


@pytest.mark.parametrize(
    ("args", "way"),
    [
        ((*CARRY, "openvino:float32", "--from", "openvino"), "--calibration"),
        (("calibrate", "--benign", embedded.LEXICON), "--output"),
    ],
)
def test_nothing_is_written_into_the_embedded_bundle(
    run: Run, args: tuple[object, ...], way: str
) -> None:
    failed(run(*args), 2, "This bundle is part of the installation", way)


# backends by name


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((*CARRY, "auto"), "auto is whichever backend is the fastest"),
        ((*CARRY, "openvino", "--from", "auto"), "auto is whichever backend is the fastest"),
        ((*CARRY, "abacus"), "no backend 'abacus'"),
        ((*CARRY, "openvino", "--from", "openvino:int8"), "no precision 'int8'"),
        (("doctor", "--backend", "openvino,abacus"), "no backend 'abacus'"),
        (("doctor", "--backend", "onnxruntime:bfloat16"), "in the precision of the graph"),
        (("doctor", "--backend", "openvino, auto"), "without --backend"),
    ],
)
def test_names_are_looked_at_before_anything_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[object, ...], words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a bundle was opened on a backend")

    monkeypatch.setattr("mnemoscope_runtime.predictor.open_backend", refuse)
    if args[0] == "calibration":
        copy = shutil.copy(embedded.BUNDLE / "calibration.json", tmp_path)
        args = (*args, "--calibration", copy)
    result = run(*args)
    failed(result, 2, words)
    assert result.out == ""


def test_the_calibration_of_another_bundle(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "c.json")
    args = ("screen", "a cat", "--bundle", bundle_dir, "--calibration", path)
    failed(run(*args), 4, "made on bundle ffffffffffff")
    path.write_text("{}")
    failed(run(*args), 4, "is no calibration")
    path.write_text("{")
    failed(run(*args), 4, "is no calibration, or the rest of one")
    path.unlink()
    failed(run(*args), 4, "cannot be read")


def test_a_backend_that_is_not_installed(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    failed(
        run("screen", "a cat", "--bundle", bundle_dir),
        3,
        "backend 'onnxruntime' cannot be used",
        "pip install -c constraints.txt '.[onnxruntime]'",
    )


def test_a_backend_that_is_not_installed_in_a_process_of_its_own(bundle_dir: Path) -> None:
    code = "import sys; sys.modules['onnxruntime'] = None; from mnemoscope.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "screen", "a cat", "--bundle", bundle_dir],
        capture_output=True,
        check=False,
    )
    failed(Result(done.returncode, done.stdout.decode(), done.stderr.decode()), 3, "pip install")


@pytest.mark.parametrize(("stream", "code"), [(0, 2), (1, 3), (2, 2)])
@pytest.mark.slow
def test_streams_that_are_closed(tmp_path: Path, stream: int, code: int) -> None:
    line = shlex.join(command("screen", "--file", "-" if stream == 0 else tmp_path / "none.txt"))
    done = subprocess.run(
        f"{line} {stream}{'<' if stream == 0 else '>'}&-", shell=True, capture_output=True,
        check=False,
    )  # fmt: skip
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    if stream == 2:
        assert (result.code, result.out, result.err) == (code, "", "")
    else:
        failed(result, code, "output is closed" if stream else "holds no prompts")


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
        (EOFError("a file that is cut short"), 3, ""),
        (SystemExit(0), 3, ""),
        (SystemExit(1), 3, ""),
        (BaseException("as of Rust"), 3, "Traceback"),
        (BrokenPipeError(), 141, ""),
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

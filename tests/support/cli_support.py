"""What the tests of the command line share."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from calibrations import scores_of, setting_threshold

from mnemoscope import Calibration, CalibrationFile, Setting
from mnemoscope.cli import main
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.testing import FakeBackend

KEYS = ["prompt", "score", "scores", "rms", "p_value", "threshold", "memorized", "detector"]
KEYS += ["backend", "bundle", "steps", "truncated", "noises", "passes", "first", "cleared"]
KEYS += ["notes", "error"]
PROMPTS = ["a cat, sitting", "rain", "eine Katze — 猫"]
COMMANDS = ["screen", "audit", "demo", "calibrate", "calibration", "evaluate", "export", "inspect"]
COMMANDS += ["generate", "build", "bench", "parity", "doctor", "explain", "mitigate"]
COMMANDS += ["keygen", "sign", "serve", "triton", "ui"]


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
            "mnemoscope_runtime.predictor.open_backend", lambda *_, **__: FakeBackend(magnitude)
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


def calibrate(bundle: Path, threshold: float, path: Path, *, backend: str = "onnxruntime") -> Path:
    """A calibration of the bundle for one step and all its noises."""
    opened = Bundle.open(bundle)
    noises = opened.manifest.noise_bank.shape[0]
    setting = Setting(opened.id, backend, "magnitude", 1, noises)
    CalibrationFile((calibration(setting, threshold),)).write(path)
    return path


def foreign(path: Path) -> Path:
    """A calibration of some other bundle."""
    setting = Setting("f" * 64, "onnxruntime", "magnitude", 1, 3)
    CalibrationFile((calibration(setting, 0.1),)).write(path)
    return path


def calibration(setting: Setting, threshold: float) -> Calibration:
    """A calibration with that threshold, on a hundred benign scores, of which two are not 0."""
    scores = (*(0.0,) * 98, *(setting_threshold(threshold),) * 2)
    return Calibration.of(setting, scores_of(*scores), fpr=0.05)


def copied(bundle: Path, to: Path) -> Path:
    shutil.copytree(bundle, to)
    return to


def in_steps(bundle: Path, steps: int) -> Path:
    """The bundle, of pictures that are drawn in so many steps."""
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["scheduler"]["inference_steps"] = steps
    file.write_text(json.dumps(manifest))
    return bundle


def damaged(bundle: Path, to: Path) -> Path:
    file = copied(bundle, to) / "screen.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return to


def failed(result: Result, code: int, *words: str) -> None:
    """One line of error that holds all words, after notes at most."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.endswith("\n")
    *notes, error = result.err.splitlines()
    assert error.startswith("error: "), result.err
    assert all(note.startswith("note: ") for note in notes), result.err
    for word in words:
        assert word in error

"""The wheel, in an environment of its own with only the `onnxruntime` extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_prompt_is_screened_without_torch(tmp_path: Path) -> None:
    built = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT
    )  # sdist, then the wheel from the sdist
    assert built.returncode == 0, built.stderr
    wheel = next((tmp_path / "dist").glob("*.whl"))
    bare = run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    assert bare.returncode == 0, bare.stderr
    python = tmp_path / "venv" / "bin" / "python"
    installed = run(
        sys.executable, "-m", "pip", "--python", python,
        "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        "-c", ROOT / "constraints.txt", f"{wheel}[onnxruntime]",
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr

    command = tmp_path / "venv" / "bin" / "mnemoscope"
    home = str(tmp_path)
    screened = run(command, "screen", "a cat", "--format", "json", HOME=home)
    assert screened.returncode in (0, 1), screened.stderr
    row = json.loads(screened.stdout)
    assert row["backend"] == "onnxruntime"
    assert row["score"] > 0

    explained = run(command, "explain", "a cat", "--format", "html", HOME=home)
    assert explained.returncode in (0, 1), explained.stderr  # the wheel holds the pages' templates
    assert "<h1>Which words the score comes from</h1>" in explained.stdout

    assert run(python, "-c", "import torch").returncode != 0
    exported = run(command, "export", "model", "out", HOME=home)
    assert exported.returncode == 3
    assert "mnemoscope[export]" in exported.stderr
    plot = run(command, "demo", "--output", str(tmp_path / "demo"), HOME=home)
    assert plot.returncode == 3
    assert "mnemoscope[plot]" in plot.stderr

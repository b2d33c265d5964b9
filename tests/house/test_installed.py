"""The wheel with only the `onnxruntime` extra, and what the Dockerfile does; no image is built.

The one after the other in one environment, whose other packages are this one's: pip finds them
there, resolves them, and asks no index.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
from deploy_support import DOCKERFILES, INSTALLED, instructions
from linking import link
from repository import ROOT

TOLD = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def run(
    *command: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.mark.slow(first=True)
def test_the_wheel_and_the_steps_of_the_dockerfile(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    install_the_wheel(environment, tmp_path)
    screens_without_torch(environment, tmp_path)
    do_the_steps(environment, tmp_path)
    serves_as_told(environment, tmp_path)


def install_the_wheel(environment: Path, folder: Path) -> None:
    built = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT
    )  # sdist, then the wheel from the sdist
    assert built.returncode == 0, built.stderr
    wheel = next((folder / "dist").glob("*.whl"))
    bare = run(sys.executable, "-m", "venv", "--without-pip", environment)
    assert bare.returncode == 0, bare.stderr
    link(required("onnxruntime"), environment)
    installed = run(
        sys.executable, "-m", "pip", "--python", environment / "bin" / "python",
        "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-index",
        "-c", ROOT / "constraints.txt", f"{wheel}[onnxruntime]",
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr


def required(*extras: str) -> list[str]:
    """What these extras need of others."""
    told = TOLD["project"]
    wanted = (told["optional-dependencies"][extra] for extra in extras)
    return [*told["dependencies"], *chain.from_iterable(wanted)]


def screens_without_torch(environment: Path, folder: Path) -> None:
    command, home = environment / "bin" / "mnemoscope", str(folder)
    screened = run(command, "screen", "a cat", "--format", "json", HOME=home)
    assert screened.returncode in (0, 1), screened.stderr
    row = json.loads(screened.stdout)
    assert row["backend"] == "onnxruntime"
    assert row["score"] > 0

    explained = run(command, "explain", "a cat", "--format", "html", HOME=home)
    assert explained.returncode in (0, 1), explained.stderr  # the wheel holds the pages' templates
    assert "<h1>Which words the score comes from</h1>" in explained.stdout

    assert run(environment / "bin" / "python", "-c", "import torch").returncode != 0
    exported = run(command, "export", "model", "out", HOME=home)
    assert exported.returncode == 3
    assert "'.[export]" in exported.stderr
    plot = run(command, "demo", "--output", str(folder / "demo"), HOME=home)
    assert plot.returncode == 3
    assert "'.[plot]" in plot.stderr


def do_the_steps(environment: Path, folder: Path) -> None:
    """What the Dockerfile copies and installs, in a folder that has been there."""
    source = folder / "source"
    copy_context(source)
    steps = instructions(DOCKERFILES[0])["RUN"].replace(INSTALLED, str(environment))
    steps = steps.replace("python -m venv", f"{sys.executable} -m venv --without-pip", 1)
    [extras] = re.findall(r"'\.\[(.*)\]'$", steps)
    link(["pip", *TOLD["build-system"]["requires"], *required(*extras.split(","))], environment)
    quick = {"PIP_NO_COMPILE": "1", "PIP_NO_INDEX": "1"}
    done = run("sh", "-ec", f"{steps} --no-build-isolation", cwd=source, **quick)
    assert done.returncode == 0, done.stderr


def copy_context(to: Path) -> None:
    """What .dockerignore leaves of the repository."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    to.mkdir()
    for name in kept:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, to / name)


def serves_as_told(environment: Path, folder: Path) -> None:
    """What is started and asked, but that nothing of it is in a container."""
    found = instructions(DOCKERFILES[0])
    [program] = json.loads(found["ENTRYPOINT"])
    start = [program.replace(INSTALLED, str(environment)), *json.loads(found["CMD"])]
    start[start.index("0.0.0.0")] = "127.0.0.1"
    with started([*start, "--port", "0", "--grpc-port", "0"], folder) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"http://[\d.]+:\d+", line)
        assert address is not None, line + process.stderr.read()
        probe = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
        asked = [
            each.replace(INSTALLED, str(environment)).replace(
                "http://127.0.0.1:8000", address.group()
            )
            for each in probe
        ]
        healthy = run(*asked)
        process.terminate()
        assert process.wait(30) == 0
        gone = run(*asked)
    assert healthy.returncode == 0, healthy.stderr
    assert gone.returncode != 0


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    told = {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=folder, env=told
    ) as process:
        try:
            yield process
        finally:
            process.kill()

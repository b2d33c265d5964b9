"""The servers that are compared, each in processes of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    *("Server", "naive", "ours", "triton", "triton_home", "tritonserver"),
    *("free_port", "started", "wait_for"),
]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        pid: Of its first process; others that it started count with it.
        http: host:port
        grpc: host:port; empty where it has none.
    """

    pid: int
    http: str
    grpc: str = ""


@contextmanager
def ours(*options: object) -> Iterator[Server]:
    """`mnemoscope serve` on one noise, with one thread for each batch.

    Args:
        options: More of its own.
    """
    command = [
        *(sys.executable, "-m", "mnemoscope", "serve", "--port", "0", "--grpc-port", "0"),
        *("--threads", "1", "--noises", "1", *options),
    ]
    with started(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        places = re.search(r"http://(\S+) grpc://(\S+)", said)
        if places is None:
            raise RuntimeError(f"mnemoscope serve did not start: {said}")
        yield Server(process.pid, places[1], places[2])


@contextmanager
def naive() -> Iterator[Server]:
    """The endpoint of `benchmarks.serving.naive`."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", "benchmarks.serving.naive:app", "--port", str(port)),
        *("--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75"),
    ]
    with started(command, cwd=ROOT) as process:
        wait_for(f"http://127.0.0.1:{port}/openapi.json", process)
        yield Server(process.pid, f"127.0.0.1:{port}")


@contextmanager
def triton(folder: Path, python: Path) -> Iterator[Server]:
    """A real Triton, with the model that `mnemoscope triton` writes.

    Args:
        folder: For what it needs.
        python: Of the environment that it is installed in, and that the model runs in.
    """
    from mnemoscope.serve.triton import ModelOptions, write_model
    from mnemoscope.serve.triton.config import Scheduling

    environment = Scheduling(environment=str(python.parent.parent))
    options = ModelOptions(threads=1, noises=1)
    write_model(folder / "models", options=options, scheduling=environment)
    with tritonserver(folder / "models", folder, python) as server:
        yield server


@contextmanager
def tritonserver(models: Path, folder: Path, python: Path, *options: str) -> Iterator[Server]:
    """Triton, of the wheel nvidia-pytriton, once it has loaded what it could.

    Args:
        models: Its model repository.
        folder: For what it needs, and its log, `log`.
        python: Of the environment that it is installed in.
        options: More of its own.
    """
    home = triton_home(python)
    assert home is not None
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    version = home.parents[2].name.removeprefix("python")
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(home / "backends" / "python").glob("*triton*"), stub):
        (backend / file.name).symlink_to(file)
    http, grpc = free_port(), free_port()
    told = {
        **{"model-repository": models, "backend-directory": backend.parent},
        **{"http-address": "127.0.0.1", "http-port": http},
        **{"grpc-address": "127.0.0.1", "grpc-port": grpc, "allow-metrics": "false"},
        **{"exit-on-error": "false", "exit-timeout-secs": 5},
    }
    command = [home / "bin" / "tritonserver", *(f"--{k}={v}" for k, v in told.items()), *options]
    with (
        (folder / "log").open("wb") as log,
        started(command, stdout=log, stderr=log, env=_with_library(python)) as process,
    ):
        wait_for(f"http://127.0.0.1:{http}/v2/health/live", process)
        yield Server(process.pid, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def _with_library(python: Path) -> dict[str, str]:
    """This environment, in which Triton's stub finds libpython, wherever Python was installed."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    folders = [told.stdout.strip(), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, folders))}


def triton_home(python: Path) -> Path | None:
    """The folder of the server; None where that Python's environment has none."""
    packages = python.parent.parent.glob("lib/python3.*/site-packages")
    return next(
        (each for folder in packages for each in folder.glob("pytriton/tritonserver")), None
    )


@contextmanager
def started(command: list[object], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended afterwards.

    Args:
        command: Its command line.
        options: Of `subprocess.Popen`.
    """
    process = subprocess.Popen(list(map(str, command)), **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a server answers with success.

    Args:
        url: Of what it answers.
        process: That it is in.
        seconds: That it may take.

    Raises:
        RuntimeError: it ended, or took longer.
    """
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args} does not answer.")

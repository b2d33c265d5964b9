"""A real Triton, of the wheel nvidia-pytriton, in an environment of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from repository import ROOT

from benchmarks.serving.servers import triton_home, tritonserver

CLIENTS = Path(os.environ.get("CLIENTS_PYTHON", ROOT / ".venv" / "clients" / "bin" / "python"))


@dataclass(frozen=True)
class Triton:
    """Where it listens, and its log."""

    http: str
    grpc: str
    log: Path


def home() -> Path | None:
    """The folder of the server; None where the environment has none."""
    return triton_home(CLIENTS)


@contextmanager
def serving(repository: Path, folder: Path) -> Iterator[Triton]:
    """Triton with a model repository, once it is ready.

    Args:
        repository: Its models; each names the environment that it runs in.
        folder: For what the server needs.
    """
    with tritonserver(repository, folder, CLIENTS, "--log-verbose=1") as server:
        yield Triton(server.http, server.grpc, folder / "log")

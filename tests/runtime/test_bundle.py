from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mnemoscope_runtime import Bundle, IntegrityError, SchemaError
from mnemoscope_runtime.bundle import MANIFEST


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_dir, tmp_path / "bundle")


def test_opens(bundle_dir: Path) -> None:
    bundle = Bundle.open(str(bundle_dir))
    assert bundle.path == bundle_dir
    assert bundle.id == hashlib.sha256((bundle_dir / MANIFEST).read_bytes()).hexdigest()
    assert len(bundle.manifest.files) >= 6
    for name, record in bundle.manifest.files.items():
        content = bundle.read(name)
        assert content == (bundle_dir / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (record.sha256, record.bytes)
    assert bundle.data_files() == ["model.weights"]


def test_copy_is_the_same_bundle(bundle_dir: Path, copy: Path) -> None:
    assert Bundle.open(copy).id == Bundle.open(bundle_dir).id


def test_link_to_a_bundle_opens(bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_dir, target_is_directory=True)
    assert Bundle.open(tmp_path / "link").id == Bundle.open(bundle_dir).id


def test_noise_bank(bundle_dir: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    bank = bundle.noise_bank()
    assert bank.shape == bundle.manifest.noise_bank.shape == (3, 4, 8, 8)
    assert bank.dtype == np.float32
    assert abs(bank.mean()) < 0.1
    assert abs(bank.std() - 1) < 0.1
    assert not np.array_equal(bank[0], bank[1])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("timestep", 1000, "screens at timestep 1000 of a model that has 1000"),
        ("timestep", -1, "screens at timestep -1 of a model"),
        ("steps_offset", 100, "samples timesteps 1080 to 100 of a model that has 1000"),
        ("steps_offset", -1, "to -1 of a model"),
    ],
)
def test_schedule_that_cannot_be(copy: Path, field: str, value: int, why: str) -> None:
    manifest = json.loads((copy / MANIFEST).read_bytes())
    (manifest if field == "timestep" else manifest["scheduler"])[field] = value
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=why):
        Bundle.open(copy)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"nowhere does not exist.*mnemoscope export"):
        Bundle.open(tmp_path / "nowhere")


def test_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


def test_file_instead_of_a_directory(bundle_dir: Path) -> None:
    with pytest.raises(SchemaError, match=r"has no manifest\.json"):
        Bundle.open(bundle_dir / MANIFEST)


def test_directory_instead_of_a_manifest(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).mkdir()
    with pytest.raises(SchemaError):
        Bundle.open(copy)


def test_name_that_no_file_can_have() -> None:
    with pytest.raises(SchemaError, match="does not exist"):
        Bundle.open("a\0b")


def test_files_that_nobody_lists_are_never_read(copy: Path) -> None:
    (copy / "calibration.json").write_text("{")
    bundle = Bundle.open(copy)
    for name in ("calibration.json", MANIFEST, f"../{copy.name}/model.weights"):
        with pytest.raises(IntegrityError, match="has no file"):
            bundle.read(name)


def test_what_was_verified_is_what_is_read(copy: Path) -> None:
    bundle = Bundle.open(copy)
    before = (copy / "model.weights").read_bytes()
    (copy / "model.weights").write_bytes(b"\0" * len(before))
    assert bundle.read("model.weights") == before


def test_files_are_verified_again_after_release(copy: Path) -> None:
    bundle = Bundle.open(copy)
    before = bundle.read("screen.onnx")
    bundle.release()
    assert bundle.read("screen.onnx") == before
    bundle.release()
    (copy / "screen.onnx").write_bytes(b"\0" * len(before))
    with pytest.raises(IntegrityError, match="sha256"):
        bundle.read("screen.onnx")

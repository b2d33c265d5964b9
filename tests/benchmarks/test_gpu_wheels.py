"""What is brought to a machine without a network, and what is taken of it there."""

from __future__ import annotations

import subprocess
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from repository import ROOT

from benchmarks.gpu import prepare, wheels


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any") -> Path:
    path, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def test_what_is_collected_is_pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        make_wheel(folder, command[-1].split("==")[0].replace("-", "_"), "1", "cp312-cp312-any")

    monkeypatch.setattr(subprocess, "run", run)
    wheels.main(["--output", str(tmp_path), "--python", "3.12", "--onnxruntime-gpu", "3.12"])
    packages, gpu = asked
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert {f"diffusers=={_pin(pins, 'diffusers')}", f"msgspec=={_pin(pins, 'msgspec')}"} <= {
        *packages
    }
    assert gpu[-1] == f"onnxruntime-gpu=={_pin(pins, 'onnxruntime')}"
    assert sorted(each.name for each in tmp_path.glob("onnxruntime_gpu*")) == [
        "onnxruntime_gpu-1-cp312-cp312-any.whl.part-01-of-01",
        "onnxruntime_gpu-1-cp312-cp312-any.whl.sha256",
    ]


def _pin(lines: list[str], name: str) -> str:
    [found] = [line.split("==")[1] for line in lines if line.startswith(f"{name}==")]
    return found


def test_parts_are_put_together_once_all_are_there(tmp_path: Path) -> None:
    home, there = tmp_path / "home", tmp_path / "there"
    home.mkdir()
    there.mkdir()
    wheel = make_wheel(tmp_path, "onnxruntime_gpu", "1.31.1")
    parts = wheels.split(wheel, home, 200)
    assert len(parts) > 2
    assert max(each.stat().st_size for each in parts) == 200
    assert prepare.join(there) == "it was not brought along"
    for each in parts[1:]:
        (there / each.name).write_bytes(each.read_bytes())
    assert prepare.join(there) == f"of its {len(parts)} parts 1 are missing"
    (there / parts[0].name).write_bytes(b"\0" * 200)
    assert prepare.join(there) == f"{wheel.name}.sha256 is missing"
    (there / f"{wheel.name}.sha256").write_bytes((home / f"{wheel.name}.sha256").read_bytes())
    assert prepare.join(there) == "its parts put together are not what was cut (sha256)"
    assert not list(there.glob("*.whl"))
    (there / parts[0].name).write_bytes(parts[0].read_bytes())
    assert prepare.join(there) is None
    assert (there / wheel.name).read_bytes() == wheel.read_bytes()
    assert prepare.lacking(there, {}) == ["onnxruntime-gpu"]


def test_only_what_is_missing_or_too_old_is_installed(tmp_path: Path) -> None:
    for name in ("diffusers", "msgspec", "rich", "typer"):
        make_wheel(tmp_path, name, "99.1")
    here = {"msgspec": "0.9.1", "rich": "13.10", "typer": "0.20"}

    def installed(name: str) -> str:
        if name not in here:
            raise PackageNotFoundError(name)
        return here[name]

    lowest = prepare.lowest(ROOT / "pyproject.toml")
    assert (lowest["msgspec"], lowest["onnxruntime-gpu"]) == ("0.19", "1.24")
    assert prepare.lacking(tmp_path, lowest, installed) == ["diffusers", "msgspec"]


@pytest.mark.slow
def test_pip_unpacks_what_fits(tmp_path: Path) -> None:
    for tag in ("cp39-cp39-any", "py3-none-any"):
        make_wheel(tmp_path, "thing", "1.0" if tag.startswith("py3") else "2.0", tag)
    site = tmp_path / "site"
    prepare.install(tmp_path, ["thing"], site)
    assert (site / "thing.py").read_text() == "version = '1.0'\n"
    prepare.install(tmp_path, [], site)
    with pytest.raises(subprocess.CalledProcessError):
        prepare.install(tmp_path, ["other"], site)

"""Plans and their sidecars; building them is in test_tensorrt_build."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mnemoscope_runtime import (
    BackendError,
    IntegrityError,
)
from mnemoscope_runtime.backends import tensorrt
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt import PlanKey, keys, read_plan, write_plan

KEY = PlanKey(
    backend="tensorrt-rtx",
    version="1.7.1",
    cuda=13,
    bundle="ab" * 32,
    graph="screen",
    graph_sha256="cd" * 32,
    weights_sha256=("ef" * 32,),
    precision="float16",
    profiles=(Profile((1, 4), (1, 3)),),
    platform="linux-x86_64",
    gpu="any",
    sm=("SM89",),
)


def test_round_trip(tmp_path: Path) -> None:
    path = write_plan(tmp_path / "new", KEY, b"engine")
    assert path.name == "tensorrt-rtx.screen.float16.1-4x1-3.engine"
    assert read_plan(tmp_path / "new", KEY) == b"engine"
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no plan.*mnemoscope build BUNDLE --backend tens"):
        read_plan(tmp_path, KEY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "1.8.0"}, r"version is 1\.7\.1, here it is 1\.8\.0"),
        ({"bundle": "00" * 32}, "bundle is abababababab…, here it is 000000000000…"),
        ({"graph_sha256": "00" * 32}, "graph_sha256 is"),
        ({"weights_sha256": ("00" * 32,)}, "weights_sha256 is"),
        ({"platform": "linux-aarch64"}, "platform is linux-x86_64, here it is linux-aarch64"),
        ({"cuda": 12}, "cuda is 13, here it is 12"),
        ({"gpu": "NVIDIA A100"}, "gpu is any, here it is NVIDIA A100"),
        ({"sm": ("SM86",)}, r"sm is \('SM89',\), here it is \('SM86',\)"),
        ({"flags": ("level=5",)}, r"flags is \(\), here it is \('level=5',\)"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: dict[str, object], words: str) -> None:
    write_plan(tmp_path, KEY, b"engine")
    with pytest.raises(BackendError, match=f"does not fit: {words}"):
        read_plan(tmp_path, replace(KEY, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [b"", b"engin", b"Engine", b"engine "])
def test_a_damaged_engine(tmp_path: Path, damage: bytes) -> None:
    write_plan(tmp_path, KEY, b"engine").write_bytes(damage)
    with pytest.raises(IntegrityError, match="differs from what its sidecar promises"):
        read_plan(tmp_path, KEY)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b"\xff", b'{"kind": "mnemoscope-engine"}']
)
def test_a_damaged_sidecar(tmp_path: Path, text: bytes) -> None:
    path = write_plan(tmp_path, KEY, b"engine")
    path.with_name(path.name + ".json").write_bytes(text)
    with pytest.raises(IntegrityError, match="Build the plan again"):
        read_plan(tmp_path, KEY)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"cannot be written.*--engines"):
        write_plan(tmp_path / "file", KEY, b"engine")


def test_what_a_folder_holds(tmp_path: Path) -> None:
    assert list(keys(tmp_path / "none")) == []
    path = write_plan(tmp_path, KEY, b"engine")
    (tmp_path / "tensorrt.screen.x.1.engine.json").write_text("{")
    (tmp_path / "notes.txt").write_text("")
    found = dict(keys(tmp_path))
    assert found.pop(path) == KEY
    assert isinstance(*found.values(), IntegrityError)


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ((Profile((1, 4), (1, 3)),), "--backend tensorrt-rtx --batch 4 --target SM89`"),
        (
            (Profile((1, 1)), Profile((1, 1), (4, 4))),
            "--backend tensorrt-rtx --profile 1,1x4 --target SM89`",
        ),
    ],
)
def test_the_command_that_builds_it(profiles: tuple[Profile, ...], words: str) -> None:
    key = replace(KEY, profiles=profiles)
    assert words in key.command
    assert "--target" not in replace(key, sm=()).command
    assert "--target" not in replace(key, backend="tensorrt").command


def test_the_page_of_the_room_names_every_file() -> None:
    room = Path(tensorrt.__file__).parent
    named = re.findall(r"^\| `(\w+\.py)` \|", (room / "README.md").read_text("utf-8"), re.M)
    assert sorted([*named, "__init__.py"]) == sorted(path.name for path in room.glob("*.py"))

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.audit import RayWorkers, ray_cluster
from mnemoscope.audit.ray_cluster import connect, resources, room


class FakeRay(ModuleType):
    """As much of Ray as is asked before anything is done."""

    def __init__(self, has: dict[str, float], *, connected: bool = True) -> None:
        super().__init__("ray")
        self.has = has
        self.connected = connected
        self.begun: list[str] = []

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, address: str, **_: Any) -> None:
        self.begun.append(address)
        raise ConnectionError("Could not find\nany cluster.")

    def shutdown(self) -> None:
        self.begun.append("shutdown")

    def cluster_resources(self) -> dict[str, float]:
        return self.has


@pytest.mark.parametrize(
    ("has", "cpus", "gpus", "count"),
    [
        ({"CPU": 8.0}, 1, 0, 8),
        ({"CPU": 8.0}, 3, 0, 2),
        ({"CPU": 8.0}, 0.5, 0, 16),
        ({"CPU": 64.0, "GPU": 4.0}, 1, 1, 4),
        ({"CPU": 2.0, "GPU": 4.0}, 1, 0.5, 2),
        ({"CPU": 8.0}, 1, 1, 0),
        ({}, 1, 0, 0),
    ],
)
def test_room(has: dict[str, float], cpus: float, gpus: float, count: int) -> None:
    assert room(has, cpus, gpus) == count


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay({"CPU": 16.0}))
    with pytest.raises(BackendUnavailable, match="takes 1 CPUs and 1 GPUs: it has 16 CPUs and 0 G"):
        RayWorkers.start("auto", gpus=1)
    assert resources(FakeRay({"CPU": 2.0, "GPU": 1.0})) == "2 CPUs and 1 GPUs"


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[ray\]"):
        RayWorkers.start()


def test_a_process_that_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay({"CPU": 1.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    with ExitStack() as closing:
        assert connect("auto", 1, closing) is ray
    assert ray.begun == []  # and is left connected
    for address in ("local", "10.0.0.1:6379"):
        with pytest.raises(InputError, match='Give the address "auto"'), ExitStack() as closing:
            connect(address, 1, closing)


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("auto", BackendUnavailable, "Could not find any cluster. Run this on a node"),
        ("local", BackendUnavailable, "Could not find any cluster. Try again"),
        ("127.0.0.1:1", BackendUnavailable, "refused"),
        ("host:port", InputError, "is no address of a Ray cluster"),
    ],
)
def test_no_cluster(
    monkeypatch: pytest.MonkeyPatch, address: str, kind: type[Exception], words: str
) -> None:
    """Ray itself would look for one at a wrong address for minutes."""
    ray = FakeRay({}, connected=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(kind, match=words), ExitStack() as closing:
        connect(address, 1, closing)
    assert ray.begun[-1] == "shutdown"
    assert ":" not in "".join(ray.begun)


def test_a_folder_that_is_written_in_while_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Ray's processes some end after it has shut down."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    deleted = ray_cluster.shutil.rmtree
    late = ["one", "another"]

    def meanwhile(path: Path, **options: bool) -> None:
        deleted(path, **options)
        if late:
            (path / late.pop()).mkdir(parents=True)

    monkeypatch.setattr(ray_cluster.shutil, "rmtree", meanwhile)
    ray_cluster._remove(folder)
    assert not folder.exists()
    assert not late

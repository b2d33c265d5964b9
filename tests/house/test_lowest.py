"""The environment of the lowest versions has the lowest that the metadata allows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from repository import ROOT

HERE = {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}


def floors() -> dict[str, Version]:
    """What the metadata names of what is installed there, with the lowest versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    makefile = (ROOT / "Makefile").read_text()
    [extras] = re.findall(r"(?<=constraints-lowest.txt \\\n\t\t-e '\.\[)[a-z,-]+", makefile)

    def named(wanted: list[str]) -> Iterator[Requirement]:
        for each in map(Requirement, wanted):
            if each.name != "mnemoscope":
                yield each
            for extra in each.extras if each.name == "mnemoscope" else ():
                yield from named(project["optional-dependencies"][extra])

    found = {}
    for each in named([*project["dependencies"], f"mnemoscope[{extras}]"]):
        lowest = [Version(part.version) for part in each.specifier if part.operator == ">="]
        found[canonicalize_name(each.name)] = lowest[0]
    return found


def pins(python: str) -> dict[str, Version]:
    return dict(_pins(python))


def _pins(python: str) -> Iterator[tuple[str, Version]]:
    for line in (ROOT / "constraints-lowest.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        each = Requirement(line)
        if each.marker is None or each.marker.evaluate(HERE | {"python_version": python}):
            [pin] = each.specifier
            assert pin.operator == "=="
            yield canonicalize_name(each.name), Version(pin.version)


def test_each_is_the_lowest() -> None:
    """Where the metadata says 1.24, a 1.24.1 is one of it, if there was no other."""
    found, allowed = pins("3.11"), floors()
    assert {"numpy", "torch", "diffusers", "fastapi", "grpcio"} <= set(allowed)
    assert set(allowed) <= set(found)
    assert {
        name: str(found[name])
        for name, lowest in allowed.items()
        if found[name].release[: len(lowest.release)] != lowest.release
    } == {}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_has_one_version_on_each_python(python: str) -> None:
    names = [name for name, _ in _pins(python)]
    assert len(names) == len(set(names))
    assert set(names) == set(pins("3.11"))
    assert all(pins(python)[name] >= lowest for name, lowest in floors().items())

"""A fresh environment's dependencies, from this one: what pip would unpack is here already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["link"]


def link(requirements: Iterable[str], environment: Path) -> None:
    """Put these and what they require, and nothing else, into an environment of the same Python.

    Args:
        requirements: As in a package's metadata; their versions are left to pip.
        environment: Its folder. Files are those of this environment: change none in place.
    """
    [site] = environment.glob("lib/python3.*/site-packages")
    for name in _closure(map(Requirement, requirements)):
        found = distribution(name)
        for file in found.files or ():
            to = site / file
            if ".." not in file.parts and not to.exists():  # no commands: they name this Python
                to.parent.mkdir(parents=True, exist_ok=True)
                _link(Path(str(found.locate_file(file))), to)


def _closure(requirements: Iterable[Requirement]) -> set[str]:
    """Names of all distributions that these ask for, also through others."""
    asked, seen = [*requirements], set[tuple[str, str]]()
    while asked:
        each = asked.pop()
        for extra in {"", *each.extras} - {ex for name, ex in seen if name == _name(each)}:
            seen.add((_name(each), extra))
            more = map(Requirement, distribution(each.name).requires or ())
            told = {"extra": extra}
            asked += [one for one in more if one.marker is None or one.marker.evaluate(told)]
    return {name for name, _ in seen}


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # on another disk
        shutil.copyfile(file, to)

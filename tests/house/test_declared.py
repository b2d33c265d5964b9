"""What the packages import is in the metadata: another package that brings it may stop doing so."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires

from packages import FLOORS, imported
from repository import ROOT

OURS = {"mnemoscope", "mnemoscope_export", "mnemoscope_runtime"}
# what imports them is given by the first, and is of no use without it
BROUGHT = {"starlette": "fastapi", "pydantic": "fastapi", "huggingface-hub": "transformers"}
# of the machine, or of no distribution that is installed here
ELSEWHERE = {"comfy", "folder_paths", "triton_python_backend_utils"}
# packages that are not installed here, or that their distribution does not list
KNOWN = {"gradio": "gradio", "tensorrt": "tensorrt", "cuda": "cuda-bindings"}


def name_of(requirement: str) -> str:
    return canonical(re.split(r"[^\w.-]", requirement)[0])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lists = [each for name, each in extras.items() if name not in ("dev", "docs")]
    return {name_of(line) for each in (project["dependencies"], *lists) for line in each}


def found() -> dict[str, set[str]]:
    """Of each package that is imported, the distributions that bring it."""
    of = packages_distributions()
    names = {
        name
        for folder, _ in FLOORS.values()
        for path in folder.rglob("*.py")
        for name in imported(path, folder.parent)
    }
    return {
        name: {canonical(each) for each in of.get(name, [KNOWN.get(name, name)])}
        for name in names - OURS - ELSEWHERE - set(sys.stdlib_module_names)
    }


def test_all_that_is_imported_is_declared() -> None:
    names = declared()
    lacking = {
        name: brings
        for name, brings in found().items()
        if not brings & names and not {BROUGHT.get(each) for each in brings} & names
    }
    assert not lacking
    assert "httpx" not in names  # for tests alone, as a package must be that fails here


def test_what_is_brought_by_another_is_brought_by_it() -> None:
    for brought, by in BROUGHT.items():
        assert brought in map(name_of, requires(by) or ())

"""What programs say: one step and two steps, never "step(s)"; and how packages are installed."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
from repository import ROOT

from mnemoscope_runtime.wording import pip_install

ROOMS = ("runtime", "export", "sdk", "integrations", "examples", "recipes", "benchmarks")


def evasive(source: str) -> Iterator[str]:
    """Texts that leave it to who reads them how many there are."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+\((?:s|es)\)", node.value)


@pytest.mark.parametrize("room", ROOMS)
def test_things_are_counted(room: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): list(evasive(path.read_text("utf-8")))
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert found
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_what_is_not_counted_is_seen() -> None:
    source = """f(s); a = f"{n} step(s)"; b = "two boxes, " "3 box(es)" """
    assert set(evasive(source)) == {"step(s)", "box(es)"}


def extras_of(source: str) -> set[str]:
    """What `pip_install` is given in a module, where that is written out."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    given = [call.args[0] for call in calls if ast.unparse(call.func) == "pip_install"]
    texts = [each.value for each in given if isinstance(each, ast.Constant)]
    return {extra for text in texts for extra in str(text).split(",")}


def test_packages_are_installed_as_the_readme_says() -> None:
    assert pip_install("onnxruntime").split("`")[1] in (ROOT / "README.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named: set[str] = set()
    for room in ("runtime", "export", "sdk"):
        for path in (ROOT / room).rglob("*.py"):
            source = path.read_text("utf-8")
            assert "mnemoscope[" not in source.replace("\\", ""), path  # no index has it
            named |= extras_of(source)
    assert {"torch", "calibrate", "ui"} <= named <= project["optional-dependencies"].keys()


def test_the_page_has_an_environment_of_its_own() -> None:
    pinned = re.findall(r"-c (\S+)", pip_install("ui") + pip_install("serve"))
    has = ["gradio==" in (ROOT / file).read_text("utf-8") for file in pinned]
    assert has == [True, False]

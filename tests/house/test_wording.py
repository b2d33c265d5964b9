"""What programs say: one step and two steps, never "step(s)"; and how packages are installed."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from repository import ROOT

from mnemoscope_runtime.wording import pip_install

ROOMS = ("runtime", "export", "sdk", "integrations", "examples", "recipes", "benchmarks")


def evasive(source: str) -> Iterator[str]:
    """Texts that leave it to who reads them how many there are."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+\((?:s|es)\)", node.value)


SEVERAL = {  # names, verbs and numbers that are never 1
    "' and '.join(map(str, rows)) rows",
    "count flagged prompts",
    "count images",
    "len(memorized) scores",
    "len(patcher.patches) weights",
    "len(prompts) words",
    "name prompts",
    "part weights",
    "path / MANIFEST samples",
    "title prompts",
}
THINGS = "prompt|caption|candidate|image|picture|noise|row|word|text|sample|score|file|weight|group"


def uncounted(source: str) -> Iterator[str]:
    """Numbers that may be 1 before things that are several; constants are as they are written."""
    for text in ast.walk(ast.parse(source)):
        if isinstance(text, ast.JoinedStr):
            for number, behind in pairwise(text.values):
                if isinstance(number, ast.FormattedValue) and isinstance(behind, ast.Constant):
                    told = ast.unparse(number.value)
                    things = re.match(
                        rf" (?:\w+ed |benign |other |recent )?(?:{THINGS})s\b", str(behind.value)
                    )
                    if things and not told.isupper():
                        yield told + things[0]


@pytest.mark.parametrize("room", ROOMS)
def test_things_are_counted(room: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): list(evasive(path.read_text("utf-8")))
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert found
    assert {path: texts for path, texts in found.items() if texts} == {}


@pytest.mark.parametrize("room", ["runtime", "export", "sdk", "integrations"])
def test_one_of_a_thing_is_not_several(room: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): set(uncounted(path.read_text("utf-8"))) - SEVERAL
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_number_that_may_be_one_is_seen() -> None:
    source = (
        """f"{n} prompts"; f"{len(x)} benign prompts"; f"{MOST} prompts"; f"{counted(n, 'row')}" """
    )
    assert set(uncounted(source)) == {"n prompts", "len(x) benign prompts"}


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

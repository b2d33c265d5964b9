"""Imports go down only, and screening never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "runtime": (ROOT / "runtime" / "mnemoscope_runtime", {"mnemoscope_export", "mnemoscope"}),
    "export": (ROOT / "export" / "mnemoscope_export", {"mnemoscope"}),
    "sdk": (ROOT / "sdk" / "mnemoscope", set[str]()),
}
NO_TORCH = ("torch", "transformers", "diffusers", "onnx", "mnemoscope_export")


def imported(path: Path) -> set[str]:
    """Top-level names of all packages that a module imports, wherever in the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    folder, above = FLOORS[floor]
    modules = list(folder.rglob("*.py"))
    assert modules
    wrong = {str(path.relative_to(ROOT)): imported(path) & above for path in modules}
    assert not {path: names for path, names in wrong.items() if names}


def test_product_does_not_import_tests_or_recipes() -> None:
    for folder, _ in FLOORS.values():
        for path in folder.rglob("*.py"):
            assert not imported(path) & {"tests", "recipes", "benchmarks", "pytest"}, path


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from mnemoscope.detector import Detector\n")
    assert imported(module) == {"mnemoscope"}


@pytest.mark.parametrize(
    "code",
    [
        "import mnemoscope_runtime, mnemoscope_runtime.backends.onnxruntime",
        "import mnemoscope",
        "from mnemoscope.cli import main; sys.argv = ['mnemoscope', 'screen', 'a cat']\n"
        "try: main()\nexcept SystemExit as end: assert end.code in (0, 1), end.code",
        "from mnemoscope.explain import explain; assert explain('a cat', method='occlusion').words",
    ],
    ids=["runtime", "sdk", "screen", "explain"],
)
def test_torch_is_never_loaded(code: str) -> None:
    blocked = f"import sys\nfor name in {NO_TORCH}: sys.modules[name] = None\n"
    result = subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr

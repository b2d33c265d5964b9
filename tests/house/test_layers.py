"""Imports go down only and in no circle, and screening never loads torch."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packages import FLOORS, imported, imports, module_of
from repository import ROOT

NO_TORCH = ("torch", "transformers", "diffusers", "onnx", "mnemoscope_export")


def graph(folder: Path) -> dict[str, set[str]]:
    """Which module below a folder imports which others of them; of packages their modules."""
    root = folder.parent
    modules = {module_of(path, root): path for path in folder.rglob("*.py")}
    found = {}
    for name, path in modules.items():
        names = imports(path, root) & set(modules)
        # `from ..room import module` is of the module, and not of the room's __init__
        inner = {each for each in names if any(n.startswith(f"{each}.") for n in names)}
        found[name] = names - inner - {name}
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    folder, above = FLOORS[floor]
    modules = list(folder.rglob("*.py"))
    assert modules
    wrong = {str(path.relative_to(ROOT)): imported(path, folder.parent) & above for path in modules}
    assert not {path: names for path, names in wrong.items() if names}


def test_product_does_not_import_tests_or_recipes() -> None:
    for folder, _ in FLOORS.values():
        for path in folder.rglob("*.py"):
            assert not imported(path, folder.parent) & {
                "tests",
                "recipes",
                "benchmarks",
                "integrations",
                "pytest",
            }, path


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from mnemoscope.detector import Detector\n")
    assert imported(module, tmp_path) == {"mnemoscope"}


@pytest.mark.parametrize("floor", FLOORS)
def test_no_module_needs_itself(floor: str) -> None:
    folder, _ = FLOORS[floor]
    TopologicalSorter(graph(folder)).prepare()  # or a CycleError, which names the circle


@pytest.mark.parametrize("lazily", [False, True])
def test_the_check_sees_circles_of_relative_imports(tmp_path: Path, lazily: bool) -> None:
    room = tmp_path / "house" / "room"
    room.mkdir(parents=True)
    (tmp_path / "house" / "hall.py").write_text("from .room.bed import sleep\n")
    (room / "__init__.py").write_text("")
    call = "def f():\n    from .. import hall\n" if lazily else "from ..hall import walk\n"
    (room / "bed.py").write_text(call)
    with pytest.raises(CycleError, match=r"house\.hall"):
        TopologicalSorter(graph(tmp_path / "house")).prepare()
    (room / "bed.py").write_text("import os\n")
    TopologicalSorter(graph(tmp_path / "house")).prepare()


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
@pytest.mark.slow
def test_torch_is_never_loaded(code: str) -> None:
    blocked = f"import sys\nfor name in {NO_TORCH}: sys.modules[name] = None\n"
    result = subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_serving_takes_no_server() -> None:
    """The engine and the middleware: what they stand in has a server already."""
    extra = ("fastapi", "google", "grpc", "opentelemetry", "prometheus_client", "pydantic")
    blocked = (
        f"import sys\nfor name in {(*extra, 'starlette', 'uvicorn')}: sys.modules[name] = None\n"
    )
    code = "import mnemoscope.serve.middleware, mnemoscope.cli"
    result = subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr

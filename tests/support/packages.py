"""Our packages, and what their modules import."""

from __future__ import annotations

import ast
from pathlib import Path

from repository import ROOT

FLOORS = {
    "runtime": (ROOT / "runtime" / "mnemoscope_runtime", {"mnemoscope_export", "mnemoscope"}),
    "export": (ROOT / "export" / "mnemoscope_export", {"mnemoscope"}),
    "sdk": (ROOT / "sdk" / "mnemoscope", set[str]()),
}


def module_of(path: Path, root: Path) -> str:
    """The name of a module, or of a package for its __init__.py."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> set[str]:
    """What a module imports, wherever in it, with names in full: modules, and what is in them."""
    package = path.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found


def imported(path: Path, root: Path) -> set[str]:
    """Top-level names of all packages that a module imports."""
    return {name.partition(".")[0] for name in imports(path, root)}

"""The public names: what packages say in `__all__`, read without running them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
ROOMS = ("runtime", "export", "sdk")
# no packages, but what the pages and examples import from
MODULES = (
    "mnemoscope.drawing.alignment",
    "mnemoscope.drawing.copy_detection",
    "mnemoscope.drawing.generate",
    "mnemoscope.serve.middleware",
    "mnemoscope_export.models.base",
    "mnemoscope_export.models.clip",
    "mnemoscope_export.models.schedule",
    "mnemoscope_runtime.errors",
    "mnemoscope_runtime.testing",
)


@dataclass(frozen=True)
class Name:
    """A name in a package's `__all__`.

    Attributes:
        path: The package and the name.
        home: Where it is defined.
        documented: Whether it has a docstring there.
    """

    path: str
    home: str
    documented: bool


@cache
def packages() -> dict[str, tuple[Name, ...]]:
    """The names of every package that has `__all__`, and of `MODULES`."""
    loader = griffe.GriffeLoader(search_paths=[ROOT / room for room in ROOMS])
    roots = [loader.load(path.name) for room in ROOMS for path in (ROOT / room).glob("mnemoscope*")]
    loader.resolve_aliases(implicit=True, external=False)
    found: dict[str, tuple[Name, ...]] = {}
    waiting = [each for each in roots if isinstance(each, griffe.Module)]
    while waiting:
        module = waiting.pop()
        waiting += [each for each in module.modules.values() if not each.is_alias]
        if (module.is_init_module or module.path in MODULES) and module.exports:
            found[module.path] = tuple(_name(module, str(each)) for each in module.exports)
    return dict(sorted(found.items()))


def _name(module: griffe.Module, name: str) -> Name:
    member = module[name]
    target = member.final_target if member.is_alias else member
    return Name(f"{module.path}.{name}", target.path, target.docstring is not None)

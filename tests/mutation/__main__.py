"""How many small changes to chosen modules their tests notice: `make mutation`.

    python -m tests.mutation [MODULE ...] [--only REGEX] [--every N] [--workers N]

Every mutant is compiled in memory in a fork of a process that has imported what the tests need, so
that files stay as they are and a mutant takes about a second. It is killed if a test fails or takes
too long. The exit status is 1 if `MOST` or more survive of any module.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from io import StringIO
from pathlib import Path
from types import CodeType
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

from .mutants import Mutant, apply, mutants
from .targets import TARGETS, TESTS

MOST = 0.1
SECONDS = 60  # of CPU time for the tests of a mutant
_QUICK = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:xdist"]
_QUICK += ["-o", f"timeout={SECONDS}", "--hypothesis-profile=mutation", "--hypothesis-seed=0"]

Change = Callable[[], object]


class Mutated(SourceFileLoader):
    """Gives Python a module's mutant in place of the module, as a finder and as its loader."""

    def __init__(self, name: str, path: Path, source: str, mutant: Mutant) -> None:
        super().__init__(name, str(path))
        self._source, self._mutant = source, mutant

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_code(self, _: str) -> CodeType:
        return compile(apply(self._source, self._mutant), self.path, "exec")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--only", default="", help="regular expression that names mutants")
    parser.add_argument("--every", type=int, default=1, help="only every N-th of them")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if others := [name for name in chosen.modules if name not in TARGETS]:
        parser.error(f"{', '.join(others)}: no module that is mutated. Add it to targets.py.")
    settings.register_profile(
        "mutation", database=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
    )
    few = [_examine(name, chosen) for name in chosen.modules or TARGETS]
    return int(not all(few))


def _examine(name: str, chosen: argparse.Namespace) -> bool:
    """Print what survives; whether that is few enough."""
    target, start = TARGETS[name], time.time()
    tests = [str(TESTS / each) for each in target.tests]
    _prepare(tests)
    path = _path(name)
    if _forked([lambda: None], tests, 1) != [0]:
        raise SystemExit(f"{name}: its tests fail as it is: {' '.join(tests)}")
    source = path.read_text()
    named = [each for each in mutants(source) if re.search(chosen.only, each.name)]
    found = named[:: chosen.every]
    tried = [each for each in found if each.name not in target.alike]
    finders = (Mutated(name, path, source, each) for each in tried)
    changes = [partial(sys.meta_path.insert, 0, finder) for finder in finders]
    codes = _forked(changes, tests, chosen.workers)
    alive = [each for each, code in zip(tried, codes, strict=True) if not code]
    share = len(alive) / len(tried)
    print(
        f"{name}: {len(tried)} mutants, {len(alive)} survive ({share:.1%}); "
        f"{len(found) - len(tried)} more are known to be alike; {time.time() - start:.0f} s",
        flush=True,
    )
    for each in alive:
        print(f"  {path}:{each.line}: {each.name}", flush=True)
    return share < MOST


def _path(name: str) -> Path:
    """Where a module of ours is, which need not be imported to know."""
    root = importlib.util.find_spec(name.partition(".")[0])
    assert root is not None
    assert root.origin is not None
    return Path(root.origin).parent.joinpath(*name.split(".")[1:]).with_suffix(".py")


def _prepare(tests: Sequence[str]) -> None:
    """Import what the tests need, and forget what of it is ours: that each fork imports itself."""
    with redirect_stdout(StringIO()):
        code = pytest.main(["--collect-only", *_QUICK, *tests])
    if code != 0:
        raise SystemExit(f"These tests cannot be collected: {' '.join(tests)}")
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        ours = name.partition(".")[0].startswith("mnemoscope") or file.startswith(str(TESTS))
        if ours and name != "__main__" and not file.startswith(str(Path(__file__).parent)):
            del sys.modules[name]
    gc.freeze()  # pytest collects garbage in every fork: not in what is shared


def _forked(changes: Sequence[Change], tests: Sequence[str], workers: int) -> list[int]:
    """The exit status of the tests after each change, in a process of its own."""
    running: dict[int, int] = {}
    codes = [0] * len(changes)
    for k, change in enumerate(changes):
        if len(running) == workers:
            pid, code = os.wait()
            codes[running.pop(pid)] = code
        pid = os.fork()
        if not pid:
            _try(change, tests)
        running[pid] = k
    while running:
        pid, code = os.wait()
        codes[running.pop(pid)] = code
    return codes


def _try(change: Change, tests: Sequence[str]) -> NoReturn:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        change()
        code = int(pytest.main([*_QUICK, *tests]))
    finally:
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())

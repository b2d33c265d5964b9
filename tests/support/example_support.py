"""The examples, in this process: what they import takes longer than what they do."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable

import pytest
from cli_support import Result
from repository import ROOT

EXAMPLES = ROOT / "examples"
Example = Callable[..., Result]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """`example(name, *arguments)`: what that script says, and its exit code."""
    from accelerate.state import AcceleratorState, GradientState

    def run(name: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)  # one a process, by design
            GradientState._reset_state()
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return run

"""What a benchmark or a recipe cannot use is one line and an exit code."""

from __future__ import annotations

import re
import sys

import pytest
from repository import ROOT

from benchmarks import embedded_flow_guidance
from benchmarks.running import run_main
from mnemoscope import BackendUnavailable

CALLED = (ROOT / "benchmarks", ROOT / "recipes")
STARTED = ["load.py", "part.py"]  # by other benchmarks, which read what they say


def test_a_file_that_is_not_there_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is drawn: this takes no time."""
    monkeypatch.setattr(sys, "argv", ["benchmark", "--descriptor", "nosuch.onnx"])
    with pytest.raises(SystemExit) as ended:
        run_main(embedded_flow_guidance.main)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: The copy descriptor 'nosuch\.onnx' is neither .*\n", told)


def test_the_code_is_that_of_the_error_and_a_defect_stays_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unavailable() -> None:
        raise BackendUnavailable("It is not installed.\n  Install it.")

    with pytest.raises(SystemExit) as ended:
        run_main(unavailable)
    assert ended.value.code == 3
    assert capsys.readouterr().err == "error: It is not installed. Install it.\n"
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: print(1 // 0))


def test_every_one_that_uses_mnemoscope_is_run_so() -> None:
    called = {
        path: text
        for folder in CALLED
        for path in folder.rglob("*.py")
        if 'if __name__ == "__main__":\n' in (text := path.read_text("utf-8"))
        and re.search(r"^ *(from|import) mnemoscope", text, re.M)
    }
    assert len(called) > 30
    bare = [path.name for path, text in called.items() if "    run_main(main)\n" not in text]
    assert sorted(bare) == STARTED

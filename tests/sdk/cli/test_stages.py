"""How far a command is, on a terminal and in a log."""

from __future__ import annotations

import pytest

from mnemoscope.cli._stages import stages_shown


def walk() -> None:
    with stages_shown() as (begins, progress):
        begins("screening prompts", 1200)
        progress(1200, 1200)
        begins("drawing captions", 3)
        progress(2, 3)


def test_a_log_has_a_line_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    walk()
    assert capsys.readouterr().err.splitlines() == [
        "note: screening prompts: 1,200 to do.",
        "note: drawing captions: 3 to do.",
    ]


def test_on_a_terminal_the_bar_names_the_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    walk()
    shown = capsys.readouterr()
    assert "drawing captions" in shown.err
    assert "2/3" in shown.err
    assert "note:" not in shown.err
    assert not shown.out

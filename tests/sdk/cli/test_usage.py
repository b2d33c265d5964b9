"""Version, help, and what is no command line."""

from __future__ import annotations

import pytest
from cli_support import (
    COMMANDS,
    Result,
    Run,
    shell,
)

from mnemoscope import __version__


@pytest.mark.slow
def test_the_version() -> None:
    assert shell("--version") == Result(0, f"mnemoscope {__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert f" {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(run: Run, name: str, flag: str) -> None:
    result = run(name, flag)
    assert result.code == 0
    assert f"Usage: mnemoscope {name} " in result.out
    assert result.err == ""


def test_the_help_of_screen_has_examples_and_exit_codes(run: Run) -> None:
    out = " ".join(run("screen", "--help").out.split())
    assert "Examples mnemoscope screen" in out
    assert "mnemoscope screen --file prompts.csv --format json --output results.jsonl" in out
    assert "0 nothing flagged, 1 something flagged, 2 usage, 3 environment" in out


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["--nonsense"],
        ["screen", "a", "--nonsense"],
        ["screen", "a", "--format", "xml"],
        ["screen", "a", "--noises", "many"],
        ["export", "model"],
        ["generate", "a cat"],
        ["generate", "a cat", "-o", "x.png", "--images", "0"],
        ["demo"],
    ],
)
def test_usage(run: Run, args: list[str]) -> None:
    result = run(*args)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: mnemoscope" in result.err


@pytest.mark.slow
def test_usage_in_a_process_of_its_own() -> None:
    result = shell("screen", "--nonsense")
    assert result.code == 2
    assert "Traceback" not in result.err

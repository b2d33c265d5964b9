"""What takes minutes says on a terminal what it does, and nothing elsewhere."""

from pathlib import Path

import pytest
from cli_support import Run
from PIL import Image

from mnemoscope.cli._options import progress_bar, stages


@pytest.fixture(params=[False, True], ids=["elsewhere", "on a terminal"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
    return bool(request.param)


def test_stages(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with stages("screening it") as progress:
        progress("drawing it with [guidance]")
    told = capsys.readouterr()
    assert ("drawing it with [guidance]" in told.err) is terminal
    assert told.out == ""


def test_a_line_that_is_still_and_one_for_logs(
    terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with stages("opening", still=True) as progress:
        progress("measuring")
    assert ("measuring" in capsys.readouterr().err) is terminal
    with stages("reading", logged=True) as progress:
        progress("loading")
    err = capsys.readouterr().err
    assert "loading" in err
    assert ("reading" in err) is terminal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("bench", "--rounds", "1"), ["opening onnxruntime", "matrix rate"]),
        (
            (
                "parity",
                "--backend",
                "openvino",
                "--positives",
                "p.txt",
                "--benign",
                "b.txt",
                "--force",
            ),
            ["onnxruntime on bundle", "openvino on bundle", "3/3"],
        ),
        (
            ("generate", "a cat", "--steps", "1", "--latent-size", "4x6", "-o", "a.png"),
            ["drawing 1 picture in 1 step"],
        ),
    ],
    ids=["bench", "parity", "generate"],
)
def test_what_commands_tell(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    told: list[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "b.txt").write_text("a dog\na cow\n")
    result = run(*args)
    assert result.code == 0, result.err
    for words in told:
        assert words in result.err
    if args[0] == "generate":
        assert Image.open("a.png").size == (48, 32)


def test_a_bar_before_anything_is_done(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("calibrating"):
        pass
    err = capsys.readouterr().err
    assert ("calibrating" in err) is terminal
    assert "100" not in err  # how many there are is not known yet

"""What takes minutes says on a terminal what it does, and nothing elsewhere."""

import pytest

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


def test_a_bar_before_anything_is_done(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("calibrating"):
        pass
    err = capsys.readouterr().err
    assert ("calibrating" in err) is terminal
    assert "100" not in err  # how many there are is not known yet

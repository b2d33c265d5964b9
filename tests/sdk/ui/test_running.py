"""The page's command: what it needs, and what it refuses; the page itself is in `test_page`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from cli_support import Run, command

from mnemoscope import BackendError
from mnemoscope.ui import UiOptions
from mnemoscope.ui.running import opened

HAS_GRADIO = find_spec("gradio") is not None


@pytest.mark.skipif(HAS_GRADIO, reason="Gradio is installed")
def test_without_gradio_it_says_what_to_install(run: Run) -> None:
    found = run("ui", "--port", "0")
    assert found.code == 3
    assert "pip install -c constraints-ui.txt '.[ui]'" in found.err


def test_what_cannot_be_is_refused_first(run: Run) -> None:
    assert "65535" in run("ui", "--port", "70000").err
    assert "--bundle" in run("ui", "--model", "a-model").err
    found = run("ui", "--detector", "no-such")
    assert (found.code, "There is no detector 'no-such'" in found.err) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_GRADIO, reason="Gradio has an environment of its own: make page")
@pytest.mark.parametrize("asked", [True, False])
def test_a_signal_ends_it_and_nothing_is_left(tmp_path: Path, asked: bool) -> None:
    page = subprocess.Popen(
        command("ui", "--port", "0", "--threads", "1"),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert page.stderr is not None
        place = page.stderr.readline().split()[1]
        if asked:  # else it has said where it is, and may not be there yet
            assert urlopen(place).status == 200
        assert [each.name for each in tmp_path.iterdir()]
        page.send_signal(signal.SIGTERM)
        assert page.wait(60) == 0
    finally:
        page.kill()
        page.communicate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAS_GRADIO, reason="Gradio has an environment of its own: make page")
def test_a_place_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        options = UiOptions(port=other.getsockname()[1])
        with pytest.raises(BackendError, match="Choose another --host or"), opened(options):
            pass

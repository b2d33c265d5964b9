"""In processes of their own: what is tested is how one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs fork and PR_SET_PDEATHSIG"),
]
CODE = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which tests may run, ignores it
from mnemoscope.cli._supervised import supervised
ends = {
    "library": lambda say: os._exit(1),
    "flagged": lambda say: (say(), sys.exit(1)),
    "clean": lambda say: (say(), sys.exit(0)),
    "error": lambda say: sys.exit(4),
    "killed": lambda say: os.kill(os.getpid(), signal.SIGKILL),
    "waits": lambda say: (print(os.getpid(), flush=True), time.sleep(60)),
}
print("once")
ends[sys.argv[1]](supervised("Ray ended it."))
"""


def start(how: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", CODE, how], stdout=pipe, stderr=pipe, text=True)


def gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_codes() -> None:
    codes = {"library": 3, "flagged": 1, "clean": 0, "error": 4, "killed": -signal.SIGKILL}
    begun = {how: start(how) for how in codes}
    for how, process in begun.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == codes[how], how
        assert out == "once\n"
        assert err == ("error: Ray ended it.\n" if how == "library" else "")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_child(sent: signal.Signals) -> None:
    process = start("waits")
    assert process.stdout is not None
    process.stdout.readline()
    child = int(process.stdout.readline())
    process.send_signal(sent)
    assert process.wait(20) == -sent
    assert gone(child)

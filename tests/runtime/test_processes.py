"""Forks of a process that has engines open: told, and gone within seconds."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from mnemoscope import BackendError, Detector, embedded
from mnemoscope_runtime import Bundle, open_backend
from mnemoscope_runtime.backends.base import OwnProcess

# four threads: with one, ONNX Runtime has no threads to lose
PARENT = """
import os, signal, sys, time
from mnemoscope import BackendError, Detector
backend = sys.argv[1]
detector = Detector.load(backend=backend, threads=4)
before = detector.screen(["a cat"])[0].score

def leaves():
    pass

def uses():
    for ask in (
        lambda: detector.screen(["a cat"]),
        lambda: detector.screen(["a cat"], steps=10, noises=1),
        lambda: detector.measure(["a cat"]),
        lambda: detector.screener.probe(),
        lambda: detector.screener.embed(["a cat"]),
    ):
        try:
            ask()
        except BackendError as error:
            assert "Open it after the fork, in every worker" in str(error)
        else:
            sys.exit("it answered")

def closes():
    detector.close()

def drops():
    global detector
    del detector

def opens():
    try:
        with Detector.load(backend=backend, threads=4) as own:
            assert abs(own.screen(["a cat"])[0].score - before) < 1e-4
    except BackendError as error:  # it hung in one run of three on a busy machine
        assert backend == "openvino" and "start workers by spawning" in str(error)
    else:
        assert backend != "openvino"

for child in (leaves, uses, closes, drops, opens):
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(7)  # through the interpreter's end and all destructors
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"the child that {child.__name__} never ended")
    assert os.waitstatus_to_exitcode(status) == 7, (child.__name__, status)
    assert detector.screen(["a cat"])[0].score == before  # the parent's goes on
detector.close()
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.slow
def test_a_fork_is_told_and_ends(backend: str) -> None:
    """Whatever the child does with what its parent opened, of which it has five."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, backend],
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_backends_know_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a screener around them, as whoever runs engines himself has them."""
    bundle = Bundle.open(embedded.BUNDLE)
    for name in ("onnxruntime", "openvino"):
        backend = open_backend(name, threads=1)
        engine = backend.load(bundle, "text_encoder")
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: -1)
            with pytest.raises(BackendError, match="a fork of it"):
                backend.load(bundle, "text_encoder")
            with pytest.raises(BackendError, match="a fork of it"):
                engine({}, ())
            backend.close()
        assert backend.load(bundle, "text_encoder") is engine  # nothing was taken down
        backend.close()


def _score(prompt: str) -> float:
    with Detector.load(threads=1) as detector:
        return detector.screen([prompt])[0].score


@pytest.mark.slow
def test_spawned_workers_open_their_own() -> None:
    with Detector.load(threads=4) as detector:
        expected = detector.screen(["a cat"])[0].score
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            assert pool.submit(_score, "a cat").result(120) == pytest.approx(expected, rel=1e-5)


def test_the_process_that_opened_is_at_home() -> None:
    process = OwnProcess(Detector)
    assert process.here
    process.check()

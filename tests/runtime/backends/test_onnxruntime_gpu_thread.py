from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mnemoscope_runtime import BackendError
from mnemoscope_runtime.backends.onnxruntime_gpu.thread import OneThread


def test_all_calls_run_on_one_thread_of_its_own() -> None:
    thread = OneThread("engine")
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda _: thread.run(threading.get_ident), range(64)))
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    thread.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("engine")]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_is_raised_is_raised_to_the_caller(error: type[BaseException]) -> None:
    thread = OneThread("engine")

    def work() -> None:
        raise error

    with pytest.raises(error):
        thread.run(work)
    assert thread.run(lambda: 1) == 1  # the thread is still there
    thread.close()


def test_ctrl_c_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, began, done = OneThread("engine"), threading.Event(), []

    def work() -> None:
        began.set()
        time.sleep(0.2)
        done.append(1)

    def interrupted(*_: object, **__: object) -> None:
        began.wait(10)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mnemoscope_runtime.backends.onnxruntime_gpu.thread.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.run(work)
    assert not done
    thread.close()  # waits for what has begun
    assert done


def test_closed() -> None:
    thread = OneThread("engine")
    thread.close()
    thread.close()
    with pytest.raises(BackendError, match="closed"):
        thread.run(lambda: 1)


def test_a_forked_process_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy has no thread, and would wait for ever."""
    thread = OneThread("engine")
    here = os.getpid()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: here + 1)
        with pytest.raises(BackendError, match="Open it after the fork"):
            thread.run(lambda: 1)
        thread.close()  # returns: there is nothing to wait for
    thread.close()

"""Parts of a run of benchmarks/gpu that end in other ways than by their end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.setting import Setting
from mnemoscope_runtime import BackendUnavailable


def work(setting: Setting, *, figure: int) -> Iterator[dict[str, Any]]:
    yield {"family": setting.family}
    yield {"figure": figure}


def lack(setting: Setting) -> Iterator[dict[str, Any]]:
    yield {"figure": 1}
    raise BackendUnavailable(f"There is no {setting.device}.")


def fail(setting: Setting) -> Iterator[dict[str, Any]]:
    yield {"device": setting.device}
    raise RuntimeError("an illegal address")


def crash(setting: Setting) -> Iterator[dict[str, Any]]:
    """With a worker left behind, as compilers have them."""
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"device": setting.device, "worker": worker.pid}
    os.abort()


def hang(setting: Setting) -> Iterator[dict[str, Any]]:
    time.sleep(600)
    yield {"device": setting.device}

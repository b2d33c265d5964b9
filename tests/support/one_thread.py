"""Engines of tests have one thread, unless they are told, as PyTorch has one (see conftest)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mnemoscope_runtime import Backend
from mnemoscope_runtime.backends.onnxruntime import OnnxRuntime
from mnemoscope_runtime.backends.openvino import OpenVino

Threads = dict[type[Backend], int | None]


@pytest.fixture(scope="session", autouse=True)
def own_threads() -> Iterator[Threads]:
    """What they would have by themselves: a second one waits for the first at every operator."""
    defaults = {each: each.__init__.__kwdefaults__ for each in (OnnxRuntime, OpenVino)}
    own: Threads = {backend: told["threads"] for backend, told in defaults.items()}
    with pytest.MonkeyPatch.context() as patch:
        for told in defaults.values():
            patch.setitem(told, "threads", 1)
        yield own

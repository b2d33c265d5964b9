"""The backend that runs engines, by its name, and what it is refused for."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_gpu
import numpy as np
import pytest
from engine_support import Put
from fake_gpu import DRIVER, FakeTensorRt, magnitude

from mnemoscope import embedded
from mnemoscope_runtime import (
    BackendUnavailable,
    Bundle,
    InputError,
    Screener,
    open_backend,
)
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import folder_of
from mnemoscope_runtime.backends.tensorrt.backend import TensorRt

pytestmark = pytest.mark.usefixtures("fake_trt")


def test_by_name(
    put: Put, shipped: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "cache"))
    cache = folder_of(shipped.id, None, make=True)
    for file in put("1", "4").parent.glob("*.engine*"):
        file.rename(cache / file.name)
    with Screener.open(embedded.BUNDLE, backend="tensorrt") as screener:
        assert screener.backend.name == "tensorrt"
        found = screener.first_step(["a cat", "a dog", "rain"])
        expected = magnitude(screener.tokenizer(["a cat", "a dog", "rain"]), np.arange(4))
    np.testing.assert_array_equal(found, expected)


def test_tensorrt_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        BackendUnavailable, match=r"pip install -c constraints.txt '\.\[tensorrt\]'"
    ):
        open_backend("tensorrt")


@pytest.mark.parametrize("version", ["10.2.0", "8.6.1", "12.0.0"])
def test_another_version_of_tensorrt(fake_trt: FakeTensorRt, version: str) -> None:
    fake_trt.__version__ = version
    with pytest.raises(BackendUnavailable, match=r"not supported. Install one from 10\.3 to 11"):
        open_backend("tensorrt")


def test_cuda_bindings_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendUnavailable, match="needs cuda-bindings"):
        open_backend("tensorrt")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", fake_gpu.no_driver)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        open_backend("tensorrt")


def test_no_such_gpu() -> None:
    with pytest.raises(BackendUnavailable, match=r"no GPU 3 here.*shows 1"):
        open_backend("tensorrt", device=3)


def test_no_contexts_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 contexts"):
        TensorRt(engines=tmp_path, contexts=0)


def test_the_driver_is_asked_once_for_each_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(gpu, "driver", lambda: asked.append(1) or DRIVER)
    open_backend("tensorrt")
    assert len(asked) <= 2

"""CUDA's errors, on a GPU of numpy and on the real bindings where there is no driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cuda import Error, FakeRuntime
from fake_gpu import DRIVER

from mnemoscope_runtime import BackendError, BackendUnavailable
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.nvidia.cuda import Cuda
from mnemoscope_runtime.backends.nvidia.errors import remedy


def failing(code: int) -> Callable[..., tuple[Any, ...]]:
    return lambda *_: (code, None)


def test_a_driver_that_is_too_old(fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", lambda: replace(DRIVER, version="550.54", cuda="12.4"))
    monkeypatch.setattr(fake_cuda, "cudaSetDevice", failing(35))
    words = (
        r"driver \(550\.54\) is too old: it supports CUDA up to 12\.4, and .* for CUDA 13\. "
        r"Install a driver for CUDA 13 \(580\.65\.06 or newer on Linux\), or packages for CUDA 12\."
    )
    with pytest.raises(BackendUnavailable, match=words):
        Cuda()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "Stop what else runs on the GPU"),
        (3, r"does not survive `os\.fork"),
        (46, "Another process has the GPU for itself"),
        (209, "no code for this GPU"),
        (700, "start the process again"),
        (802, "fabric manager"),
        (803, "reboot"),
        (999, "nvidia_uvm"),
        (12345, "mnemoscope doctor"),
    ],
)
def test_each_error_has_its_remedy(
    fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    cuda = Cuda()
    monkeypatch.setattr(fake_cuda, "cudaMalloc", failing(code))
    with pytest.raises(BackendError, match=rf"error {code}\)\. .*{words}"):
        cuda.allocate(1)


def test_only_what_breaks_the_process_asks_for_another() -> None:
    """Exhausted memory or an old driver are mended otherwise."""
    restarts = [code for code in range(1000) if "start the process again" in remedy(code)]
    assert restarts == [214, 700, 702, 710, 714, 715, 716, 717, 718, 719]


# the real bindings: every call with the arguments that it gets from us


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    runtime = pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    code, _ = runtime.cudaGetDeviceCount()
    if code == runtime.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(gpu, "driver", lambda: replace(DRIVER, cuda="12.4"))
    monkeypatch.setattr(Cuda, "use", lambda _: None)
    cuda = Cuda()
    monkeypatch.undo()
    return cuda


def buffer() -> np.ndarray:
    return np.zeros(8, np.uint8)


CALLS: dict[str, Callable[[Cuda], object]] = {
    "use": lambda cuda: cuda.use(),
    "allocate": lambda cuda: cuda.allocate(8),
    "free": lambda cuda: cuda.free(4096),
    "allocate_host": lambda cuda: cuda.allocate_host(8),
    "free_host": lambda cuda: cuda.free_host(buffer()),
    "stream": lambda cuda: cuda.stream(),
    "close_stream": lambda cuda: cuda.close_stream(4096),
    "synchronize": lambda cuda: cuda.synchronize(4096),
    "upload": lambda cuda: cuda.upload(4096, buffer(), 8, 4096),
    "download": lambda cuda: cuda.download(buffer(), 4096, 8, 4096),
    "capture": lambda cuda: cuda.capture(4096, lambda: None),
    "launch": lambda cuda: cuda.launch(exec_graph(), 4096),
    "close_graph": lambda cuda: cuda.close_graph(exec_graph()),
}


def exec_graph() -> Any:
    from cuda.bindings import runtime

    return runtime.cudaGraphExec_t(0)


def test_every_call_is_tried() -> None:
    assert set(CALLS) == {name for name in vars(Cuda) if not name.startswith("_")}


@pytest.mark.parametrize("name", CALLS)
def test_the_real_bindings_take_our_arguments(real: Cuda, name: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"is too old: it supports CUDA up to 12\.4"):
        CALLS[name](real)


def test_calls_within_a_capture(real: Cuda) -> None:
    api = real._api
    for result in (
        api.cudaStreamEndCapture(4096),
        api.cudaGraphInstantiate(api.cudaGraph_t(0), 0),
        api.cudaGraphDestroy(api.cudaGraph_t(0)),
    ):
        assert result[0] == api.cudaError_t.cudaErrorInsufficientDriver


def test_the_fake_has_nothing_that_the_real_one_lacks() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    assert {name for name in vars(FakeRuntime) if name.startswith("cuda")} <= set(dir(runtime))
    for code in Error:
        assert int(getattr(runtime.cudaError_t, code.name)) == code

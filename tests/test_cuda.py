from __future__ import annotations

import numpy as np
import pytest
from fake_gpu import FakeRuntime

from mnemoscope_runtime import BackendError
from mnemoscope_runtime.cuda import Cuda


def test_there_and_back(fake_cuda: FakeRuntime) -> None:
    cuda = Cuda()
    stream, address, host = cuda.stream(), cuda.allocate(16), cuda.allocate_host(16)
    host[:] = np.arange(16)
    cuda.upload(address, host, 16, stream)
    cuda.synchronize(stream)
    host[:] = 0
    cuda.download(host, address, 8, stream)
    assert not host.any()  # copies wait for the stream
    cuda.synchronize(stream)
    assert host.tolist() == [*range(8), *[0] * 8]
    cuda.free(address)
    cuda.free_host(host)
    cuda.close_stream(stream)
    assert fake_cuda.is_empty()


def test_what_is_captured_is_done_at_every_launch(fake_cuda: FakeRuntime) -> None:
    cuda = Cuda()
    stream, address, host = cuda.stream(), cuda.allocate(4), cuda.allocate_host(4)

    def double() -> None:
        cuda.upload(address, host, 4, stream)
        fake_cuda.submit(stream, lambda: host.__imul__(2) is None)

    host[:] = 1
    graph = cuda.capture(stream, double)
    cuda.synchronize(stream)
    assert host.tolist() == [1] * 4
    for expected in (2, 4):
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        assert host.tolist() == [expected] * 4
    cuda.close_graph(graph)
    assert not fake_cuda.graphs


def test_a_capture_that_fails_leaves_the_stream_usable(fake_cuda: FakeRuntime) -> None:
    cuda = Cuda()
    stream = cuda.stream()

    def fail() -> None:
        raise BackendError("no")

    with pytest.raises(BackendError, match="no"):
        cuda.capture(stream, fail)
    cuda.synchronize(stream)
    assert not fake_cuda.capturing


def test_errors_say_what_to_do(fake_cuda: FakeRuntime) -> None:
    cuda = Cuda()
    fake_cuda.memory = 10
    with pytest.raises(BackendError, match=r"Fake 4090.*out of memory.*--profile 1"):
        cuda.allocate(11)
    with pytest.raises(BackendError, match=r"invalid argument.*mnemoscope doctor"):
        cuda.upload(123, cuda.allocate_host(1), 1, cuda.stream())

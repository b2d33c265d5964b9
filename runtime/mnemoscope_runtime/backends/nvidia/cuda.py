"""The little of CUDA that running an engine takes: memory, streams, copies and graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, BackendUnavailable
from ...wording import pip_install
from . import gpu
from .errors import TOO_OLD, driver_too_old, remedy

__all__ = ["Cuda", "Graph", "HostBuffer"]

HostBuffer = NDArray[np.uint8]
Graph = Any  # cudaGraphExec_t


class Cuda:
    """One GPU, through CUDA's runtime API (`cuda.bindings`).

    Everything but `use` is for a thread that has called `use`: CUDA's current device belongs to
    the thread.

    Raises:
        BackendUnavailable: no driver, no such GPU, a driver that is too old, or cuda-bindings is
            not installed.
    """

    def __init__(self, device: int = 0) -> None:
        self.gpu = gpu.find(device)
        self.driver = gpu.driver()
        self._device = device
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise BackendUnavailable(
                f"Running engines needs cuda-bindings: {error}. Install it with "
                f"{pip_install('tensorrt')} (or tensorrt-rtx)."
            ) from None
        self._api = runtime
        self.use()

    def use(self) -> None:
        """Make this the calling thread's GPU."""
        self._call(self._api.cudaSetDevice(self._device))

    def allocate(self, size: int) -> int:
        """Device memory of so many bytes: its address."""
        return int(self._call(self._api.cudaMalloc(size)))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call(self._api.cudaFree(address))

    def allocate_host(self, size: int) -> HostBuffer:
        """Page-locked host memory, which the GPU reads and writes itself; not zeroed."""
        address = int(self._call(self._api.cudaMallocHost(size)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_host(self, buffer: HostBuffer) -> None:
        """Give page-locked memory back; nothing may look at the buffer any more."""
        self._call(self._api.cudaFreeHost(buffer.ctypes.data))

    def stream(self) -> int:
        """A stream that does not wait for others."""
        return int(self._call(self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking)))

    def close_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call(self._api.cudaStreamDestroy(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until a stream has done everything."""
        self._call(self._api.cudaStreamSynchronize(stream))

    def upload(self, address: int, host: HostBuffer, size: int, stream: int) -> None:
        """Copy the first `size` bytes to the device, in the stream's turn."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._api.cudaMemcpyAsync(address, host.ctypes.data, size, kind, stream))

    def download(self, host: HostBuffer, address: int, size: int, stream: int) -> None:
        """Copy the first `size` bytes to the host, in the stream's turn."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._api.cudaMemcpyAsync(host.ctypes.data, address, size, kind, stream))

    def capture(self, stream: int, work: Callable[[], None]) -> Graph:
        """Record what `work` launches on a stream, without doing it."""
        # thread-local: other threads may allocate meanwhile
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._api.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            self._api.cudaStreamEndCapture(stream)  # fails, but leaves the stream usable
            raise
        graph = self._call(self._api.cudaStreamEndCapture(stream))
        try:
            return self._call(self._api.cudaGraphInstantiate(graph, 0))
        finally:
            self._call(self._api.cudaGraphDestroy(graph))

    def launch(self, graph: Graph, stream: int) -> None:
        """Do again what was recorded."""
        self._call(self._api.cudaGraphLaunch(graph, stream))

    def close_graph(self, graph: Graph) -> None:
        """Give a graph back."""
        self._call(self._api.cudaGraphExecDestroy(graph))

    def _call(self, result: tuple[Any, ...]) -> Any:
        """Unpack what cuda-bindings returns: an error code, and values.

        Raises:
            BackendError: the code is not success.
            BackendUnavailable: the driver is too old.
        """
        code, *values = result
        if int(code) == 0:
            return values[0] if values else None
        _, text = self._api.cudaGetErrorString(code)
        reason = text.decode() if isinstance(text, bytes) else str(text)
        if int(code) == TOO_OLD:
            raise BackendUnavailable(self._too_old())
        raise BackendError(
            f"CUDA failed on {self.gpu}: {reason} (error {int(code)}). {remedy(int(code))}"
        )

    def _too_old(self) -> str:
        _, version = self._api.cudaRuntimeGetVersion()  # 13050, without asking the driver
        return driver_too_old(self.driver, self.driver.cuda, version // 1000)

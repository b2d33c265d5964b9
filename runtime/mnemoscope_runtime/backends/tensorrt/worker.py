"""Running a plan: contexts, buffers and CUDA graphs of one worker."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..base import Arrays
from ..cover import Profile
from ..nvidia.cuda import Cuda, Graph, HostBuffer
from .deserialize import Loaded
from .files import PlanWarning

__all__ = ["Worker"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Tensor:
    """An input or output of the graph with its buffers, as large as its largest profile."""

    name: str
    dtype: np.dtype[Any]
    is_input: bool
    on_host: bool
    device: int
    host: HostBuffer

    def view(self, shape: Shape) -> NDArray[Any]:
        """The beginning of the host buffer as an array."""
        return self.host[: self.size(shape)].view(self.dtype).reshape(shape)

    def size(self, shape: Shape) -> int:
        """Bytes of a shape."""
        return math.prod(shape) * self.dtype.itemsize


class Worker:
    """Runs one call at a time: a stream, a context for each profile, buffers that they share.

    Must be made, called and closed by threads that have called `Cuda.use`.

    Raises:
        BackendError: memory does not suffice, or the plan is not what its key says.
    """

    def __init__(self, loaded: Loaded, cuda: Cuda, profiles: tuple[Profile, ...]) -> None:
        self._loaded, self._cuda = loaded, cuda
        self._tensors: dict[str, _Tensor] = {}
        self._graphs: dict[int, Graph] = {}
        engine = loaded.engine
        if engine.num_optimization_profiles != len(profiles):
            raise loaded.failed(f"find {len(profiles)} profiles in the plan")
        inputs, numbers = [n for n in self._names() if self._is_input(n)], range(len(profiles))
        self._low, self._high = (
            [{name: self._limit(name, index, end) for name in inputs} for index in numbers]
            for end in (0, 2)
        )
        self._stream = cuda.stream()
        try:
            self._contexts = [self._context(index) for index in numbers]
            self._allocate()
            for index, profile in enumerate(profiles):
                self._prepare(index, profile)
        except BaseException:
            self.close()
            raise

    @property
    def leading(self) -> dict[str, int]:
        """For each input, the most it takes in its leading dimension; 1 for scalars."""
        return {name: max((high[name] or (1,))[0] for high in self._high) for name in self._high[0]}

    def __call__(
        self, profile: int, inputs: Arrays, outputs: tuple[str, ...]
    ) -> list[NDArray[np.float32]]:
        """Run one call of a size that the profile takes.

        Returns:
            The outputs, in buffers that the next call overwrites.

        Raises:
            BackendError: the inputs do not fit, or the GPU failed.
        """
        if unknown := [n for n in outputs if n not in self._tensors or self._tensors[n].is_input]:
            raise BackendError(f"The graph has no output {', '.join(unknown)}.")
        for name, array in inputs.items():
            self._check(profile, name, array)
            self._tensors[name].view(array.shape)[...] = array
        if profile in self._graphs:
            self._cuda.launch(self._graphs[profile], self._stream)
        else:
            given = {name: array.shape for name, array in inputs.items()}
            self._set_shapes(profile, given)
            self._enqueue(profile, given)
        shapes = {n: tuple(self._contexts[profile].get_tensor_shape(n)) for n in outputs}
        for name, shape in shapes.items():
            tensor = self._tensors[name]
            if not tensor.on_host:
                self._cuda.download(tensor.host, tensor.device, tensor.size(shape), self._stream)
        self._cuda.synchronize(self._stream)
        return [self._tensors[name].view(shape) for name, shape in shapes.items()]

    def close(self) -> None:
        """Give everything back."""
        with suppress(BackendError):  # a GPU that has failed has nothing left to give back
            self._cuda.synchronize(self._stream)
            for graph in self._graphs.values():
                self._cuda.close_graph(graph)
            self._contexts = []
            for tensor in self._tensors.values():
                if tensor.device:
                    self._cuda.free(tensor.device)
                self._cuda.free_host(tensor.host)
            self._cuda.close_stream(self._stream)
        self._graphs.clear()
        self._tensors.clear()

    @property
    def _captures_itself(self) -> bool:
        """TensorRT for RTX makes CUDA graphs of its own."""
        return self._loaded.config is not None

    def _names(self) -> list[str]:
        engine = self._loaded.engine
        return [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]

    def _is_input(self, name: str) -> bool:
        mode = self._loaded.engine.get_tensor_mode(name)
        return bool(mode == self._loaded.library.trt.TensorIOMode.INPUT)

    def _limit(self, name: str, profile: int, end: int) -> Shape:
        """The smallest (0) or largest (2) shape of an input."""
        shape = tuple(self._loaded.engine.get_tensor_shape(name))
        if -1 in shape:
            shape = tuple(self._loaded.engine.get_tensor_profile_shape(name, profile)[end])
        return shape

    def _context(self, profile: int) -> Any:
        context = self._loaded.context()
        try:
            selected = context.set_optimization_profile_async(profile, self._stream)
        except RuntimeError:  # what the bindings raise where the library returns False
            selected = False
        if not selected:
            raise self._loaded.failed(f"select profile {profile}")
        self._cuda.synchronize(self._stream)
        return context

    def _allocate(self) -> None:
        """Buffers for the largest shapes of all profiles, bound to all contexts."""
        trt, engine = self._loaded.library.trt, self._loaded.engine
        for profile, high in enumerate(self._high):
            self._set_shapes(profile, high)
        for name in self._names():
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
            largest = max(math.prod(tuple(c.get_tensor_shape(name))) for c in self._contexts)
            size = max(largest, 1) * dtype.itemsize
            host = self._cuda.allocate_host(size)
            try:
                device = 0 if on_host else self._cuda.allocate(size)
            except BaseException:
                self._cuda.free_host(host)
                raise
            tensor = _Tensor(name, dtype, self._is_input(name), on_host, device, host)
            self._tensors[name] = tensor
            for context in self._contexts:
                address = host.ctypes.data if on_host else device
                if not context.set_tensor_address(name, address):
                    raise self._loaded.failed(f"bind {name}")

    def _prepare(self, profile: int, sizes: Profile) -> None:
        """Run the smallest call on zeros and, where it is the only one, capture it."""
        shapes = self._low[profile]
        for name, shape in shapes.items():
            self._tensors[name].view(shape)[...] = 0
        self._set_shapes(profile, shapes)
        self._enqueue(profile, shapes)
        self._cuda.synchronize(self._stream)
        reads_host = any(t.on_host for t in self._tensors.values())  # when it is captured only
        if not sizes.is_static or self._captures_itself or reads_host:
            return
        try:
            self._graphs[profile] = self._cuda.capture(
                self._stream, lambda: self._enqueue(profile, shapes)
            )
        except BackendError as error:
            warnings.warn(
                f"The plan runs without a CUDA graph, since it cannot be captured: {error}",
                PlanWarning,
                stacklevel=2,
            )

    def _set_shapes(self, profile: int, shapes: dict[str, Shape]) -> None:
        for name, shape in shapes.items():
            if not self._contexts[profile].set_input_shape(name, shape):
                raise self._loaded.failed(f"take {name} of shape {shape}")

    def _enqueue(self, profile: int, shapes: dict[str, Shape]) -> None:
        """Inputs to the device, and a run, in the stream's turn."""
        for name, shape in shapes.items():
            tensor = self._tensors[name]
            if not tensor.on_host:
                self._cuda.upload(tensor.device, tensor.host, tensor.size(shape), self._stream)
        if not self._contexts[profile].execute_async_v3(self._stream):
            raise self._loaded.failed("run the plan")

    def _check(self, profile: int, name: str, array: NDArray[Any]) -> None:
        low, high = self._low[profile][name], self._high[profile][name]
        fits = len(array.shape) == len(high) and all(
            a <= size <= b for a, size, b in zip(low, array.shape, high, strict=True)
        )
        dtype = self._tensors[name].dtype
        if not fits or array.dtype != dtype:
            raise BackendError(
                f"{name} is {array.dtype} {array.shape}, the plan takes {dtype} from {low} to "
                f"{high}. Use the bundle that the plan was built from."
            )

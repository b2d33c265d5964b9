"""An ONNX Runtime session whose inputs and outputs stay on the device."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..base import Arrays

__all__ = ["Bound"]

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Bound:
    """A session with a device buffer for each input and output, bound once."""

    def __init__(self, onnxruntime: ModuleType, session: Any, memory: str, device: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._shapes = {given.name: tuple(given.shape) for given in session.get_inputs()}
        self._types = {given.name: np.dtype(_NUMPY[given.type]) for given in session.get_inputs()}
        if any(isinstance(size, str) for shape in self._shapes.values() for size in shape):
            raise BackendError(
                f"The graph has dimensions of unknown names: {self._shapes}. Export the model "
                "again with this version."
            )
        self._inputs, self._outputs = (
            {v.name: make(v.shape, _NUMPY[v.type], memory, device) for v in values}
            for values in (session.get_inputs(), session.get_outputs())
        )
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    @property
    def leading(self) -> dict[str, int]:
        """Leading dimension of each input, 1 for scalars."""
        return {name: shape[0] if shape else 1 for name, shape in self._shapes.items()}

    def warm_up(self) -> None:
        """Run on zeros: choose kernels, capture the CUDA graph."""
        self(0, {n: np.zeros(shape, self._types[n]) for n, shape in self._shapes.items()}, ())

    def __call__(
        self, profile: int, inputs: Arrays, outputs: tuple[str, ...]
    ) -> list[NDArray[np.float32]]:
        """Run the graph on arrays of its one shape.

        Raises:
            BackendError: they are of another, or ONNX Runtime failed.
        """
        assert profile == 0
        try:
            for name, array in inputs.items():
                shape, dtype = self._shapes[name], self._types[name]
                if (array.shape, array.dtype) != (shape, dtype):
                    raise TypeError(
                        f"{name} is {array.dtype} {array.shape}, the graph takes {dtype} {shape}"
                    )
                self._inputs[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(self._binding)
            return [self._outputs[name].numpy() for name in outputs]
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(f"ONNX Runtime failed: {error}{_remedy(error)}") from None


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "out of memory" in text or "failed to allocate" in text:
        return ". The GPU is out of memory: give a smaller batch, or stop what else runs on it"
    return ""

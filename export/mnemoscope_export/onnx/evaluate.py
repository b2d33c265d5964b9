"""Running graphs with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mnemoscope_runtime.backends.onnxruntime import import_onnxruntime
from mnemoscope_runtime.errors import ExportError

__all__ = ["Session", "evaluate", "fit"]

Array = NDArray[Any]
_FOLDER = "session.model_external_initializers_file_folder_path"
_REPACKING_OFF = "session.disable_prepacking"
_FORMAT = "session.load_model_format"


class Session:
    """An ONNX Runtime session on the CPU whose errors are ours."""

    def __init__(self, model: Path | bytes, name: str, folder: Path | None = None) -> None:
        """Load a model.

        Args:
            model: A file, or its contents.
            name: What errors call it.
            folder: Where the weights are that the contents do not hold; they are used in place,
                not repacked for speed, which would take a second copy of them.
        """
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_FORMAT, "ONNX")  # whatever the file looks like
        if folder is not None:
            options.add_session_config_entry(_FOLDER, str(folder))
            options.add_session_config_entry(_REPACKING_OFF, "1")
        self._name = name
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ExportError(
                f"ONNX Runtime {ort.__version__} cannot load {name}: {error}. "
                "Export the model to ONNX again."
            ) from None

    def __call__(self, feeds: Mapping[str, Array], *outputs: str) -> list[Array]:
        """The named outputs, or all of them."""
        try:
            found: list[Array] = self._session.run(list(outputs) or None, dict(feeds))
        except Exception as error:  # as above
            raise ExportError(
                f"{self._name} does not run: {error}. Export the model to ONNX again, with open "
                "batch dimensions."
            ) from None
        return found


def evaluate(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], folder: Path
) -> list[list[Array]]:
    """All outputs of a model for each of the feeds; weights it does not hold are in `folder`."""
    content = ir.to_proto(model).SerializeToString()
    session = Session(content, str(model.graph.name), folder)
    return [session(feeds) for feeds in batches]


def fit(graph: ir.Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays in the types of the graph's inputs; a timestep may want to be a vector of one."""
    inputs = {str(value.name): value for value in graph.inputs}
    fitted = {}
    for name, array in arrays.items():
        dtype, shape = inputs[name].dtype, inputs[name].shape
        assert dtype is not None
        assert shape is not None
        fitted[name] = np.asarray(array, dtype.numpy()).reshape(array.shape or (1,) * len(shape))
    return fitted

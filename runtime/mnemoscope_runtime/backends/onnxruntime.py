"""ONNX Runtime on the CPU: the default backend, and the oracle of the others."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailable
from .base import Arrays, Backend, OwnProcess
from .table import missing

__all__ = ["OnnxRuntime", "import_onnxruntime", "make_session"]

_PROVIDERS = ["CPUExecutionProvider"]
_FROM_MEMORY = "add_external_initializers_from_files_in_memory"
_FOLDER = "session.model_external_initializers_file_folder_path"
_FORMAT = "session.load_model_format"


def import_onnxruntime(name: str = "onnxruntime") -> ModuleType:
    """The `onnxruntime` package, without its reports of use (`switch_off_reports`).

    Args:
        name: The backend that asks, for the error.

    Raises:
        BackendUnavailable: it is not installed, empty or too old.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise missing(name, error) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise missing(name, ImportError("the package is there but empty"))
    if not hasattr(onnxruntime.SessionOptions, _FROM_MEMORY):
        old = f"onnxruntime {onnxruntime.__version__} is older than 1.24"
        raise missing(name, ImportError(old))
    onnxruntime.disable_telemetry_events()  # Windows', which the switch does not reach
    return onnxruntime


def make_session(
    onnxruntime: ModuleType,
    bundle: Bundle,
    graph: str,
    providers: Sequence[Any],
    *,
    threads: int | None = None,
    fixed: Mapping[str, int] | None = None,
    config: Mapping[str, str] | None = None,
    lean: bool = False,
) -> Any:
    """An `InferenceSession` from the verified bytes of a graph, on these providers or none.

    Args:
        onnxruntime: The package.
        bundle: Where the graph and its weights come from.
        graph: One of the manifest's.
        providers: As ONNX Runtime takes them: names, or pairs of a name and options.
        threads: CPU threads, or ONNX Runtime's choice.
        fixed: Sizes for open dimensions of the graph, by name.
        config: Further session options.
        lean: See `OnnxRuntime`.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # weights come from the bytes that were verified, never from a path inside the graph:
    # what ONNX Runtime would still look for on disk, it looks for where nothing can be
    entries = {_FORMAT: "ONNX", _FOLDER: os.devnull, **(config or {})}
    if lean:
        entries["session.disable_prepacking"] = "1"
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    for dimension, size in (fixed or {}).items():
        options.add_free_dimension_override_by_name(dimension, size)
    options.enable_cpu_mem_arena = not lean
    names = bundle.data_files()
    data = [bundle.read(name) for name in names]
    options.add_external_initializers_from_files_in_memory(names, data, [len(d) for d in data])
    file = bundle.manifest.graphs[graph]
    content = bundle.read(file)  # whose errors are the bundle's
    try:
        # enable_fallback=0: the Python wrapper would try again on the CPU and only print a line
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=list(providers),
            disabled_optimizers=["NchwcTransformer"] if lean else [],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {bundle.path / file}: {error}. "
            "Export the model again with this version, or install the version it was made with."
        ) from None


class OnnxRuntime(Backend):
    """Runs graphs as ONNX Runtime sessions on the CPU.

    Args:
        threads: CPU threads, or ONNX Runtime's choice.
        lean: Leave weights in their layout and give memory back after every operator: a full-size
            model then loads in half the time and takes a third less memory, and runs slower.

    Raises:
        BackendUnavailable: onnxruntime is not installed or is broken.
    """

    name = "onnxruntime"

    def __init__(self, *, threads: int | None = None, lean: bool = False) -> None:
        super().__init__()
        self._ort = import_onnxruntime()
        self._threads = threads
        self._lean = lean

    def make_engine(self, bundle: Bundle, graph: str) -> _Session:
        """A session from the verified bytes of a graph.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
            BackendUnavailable: the bundle is in bfloat16, or the session would not run on the
                provider that was asked for.
        """
        if bundle.manifest.precision == "bfloat16":
            raise BackendUnavailable(
                f"ONNX Runtime has no bfloat16 on a CPU, and {bundle.path} is in it. Use the "
                "backend openvino, or onnxruntime-cuda, tensorrt or tensorrt-rtx on a GPU; or "
                "export the model in float32 or float16."
            )
        session = make_session(
            self._ort, bundle, graph, _PROVIDERS, threads=self._threads, lean=self._lean
        )
        actual = session.get_providers()
        if actual != _PROVIDERS:
            raise BackendUnavailable(
                f"Asked ONNX Runtime for {_PROVIDERS}, it runs {actual}. "
                "Check the installation with `mnemoscope doctor`."
            )
        return _Session(session, self.process)


class _Session:
    """An `InferenceSession` as an engine; ONNX Runtime's run() is thread-safe."""

    def __init__(self, session: Any, process: OwnProcess) -> None:
        self._session = session
        self._process = process

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        self._process.check()
        try:
            values: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(f"ONNX Runtime failed: {error}") from None
        return values

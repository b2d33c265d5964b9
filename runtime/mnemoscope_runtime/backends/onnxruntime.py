"""ONNX Runtime on the CPU: the default backend, and the oracle of the others."""

from __future__ import annotations

import importlib
import os
import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailable, InputError
from . import Arrays, Engine, Precision, missing

__all__ = ["OnnxRuntime", "import_onnxruntime", "open_backend"]

_PROVIDERS = ["CPUExecutionProvider"]
_FROM_MEMORY = "add_external_initializers_from_files_in_memory"
_FOLDER = "session.model_external_initializers_file_folder_path"


def open_backend(*, threads: int | None = None, precision: Precision | None = None) -> OnnxRuntime:
    """The CPU backend.

    Raises:
        BackendUnavailable: onnxruntime is not installed or is broken.
        InputError: a precision was asked for; here the graph alone decides it.
    """
    if precision is not None:
        raise InputError(
            f"onnxruntime computes in the precision of the graph, so onnxruntime:{precision} is "
            "not to be had. Leave the precision out."
        )
    return OnnxRuntime(threads=threads)


def import_onnxruntime() -> ModuleType:
    """The `onnxruntime` package, without the usage reports that its import sets up (1.31)."""
    switch, before = "ORT_DISABLE_TELEMETRY", os.environ.get("ORT_DISABLE_TELEMETRY")
    os.environ[switch] = "1"  # read while the library loads
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise missing("onnxruntime", error) from None
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


class OnnxRuntime:
    """Loads graphs into ONNX Runtime sessions on the CPU."""

    name = "onnxruntime"

    def __init__(self, *, threads: int | None = None) -> None:
        onnxruntime = import_onnxruntime()
        if not hasattr(onnxruntime, "InferenceSession"):
            raise missing(self.name, ImportError("the package is there but empty"))
        if not hasattr(onnxruntime.SessionOptions, _FROM_MEMORY):
            old = f"onnxruntime {onnxruntime.__version__} is older than 1.24"
            raise missing(self.name, ImportError(old))
        self._ort = onnxruntime
        self._threads = threads
        self._sessions: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Make a session from the verified bytes of a graph; the second call returns the first's.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
            BackendUnavailable: the session would not run on the provider that was asked for.
        """
        with self._lock:
            key = (bundle.id, graph)
            if key not in self._sessions:
                self._sessions[key] = _Session(self._session(bundle, graph))
            return self._sessions[key]

    def close(self) -> None:
        """Let go of every session."""
        with self._lock:
            self._sessions.clear()

    def _session(self, bundle: Bundle, graph: str) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        # weights come from the bytes that were verified, never from a path inside the graph:
        # what ONNX Runtime would still look for on disk, it looks for where nothing can be
        options.add_session_config_entry(_FOLDER, os.devnull)
        names = bundle.data_files()
        data = [bundle.read(name) for name in names]
        options.add_external_initializers_from_files_in_memory(names, data, [len(d) for d in data])
        file = bundle.manifest.graphs[graph]
        try:
            session = self._ort.InferenceSession(bundle.read(file), options, providers=_PROVIDERS)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(
                f"ONNX Runtime {self._ort.__version__} cannot load {bundle.path / file}: {error}. "
                "Export the model again with this version, or install the version it was made with."
            ) from None
        actual = session.get_providers()
        if actual != _PROVIDERS:
            raise BackendUnavailable(
                f"Asked ONNX Runtime for {_PROVIDERS}, it runs {actual}. "
                "Check the installation with `mnemoscope doctor`."
            )
        return session


class _Session:
    """An `InferenceSession` as an engine; ONNX Runtime's run() is thread-safe."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        try:
            values: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(f"ONNX Runtime failed: {error}") from None
        return values

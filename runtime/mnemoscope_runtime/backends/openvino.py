"""OpenVINO on the CPU: bfloat16 where the processor has it."""

from __future__ import annotations

import importlib
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailable
from ..processes import OwnProcess
from . import Arrays, Engine, Precision, missing

__all__ = ["OpenVino", "import_openvino", "open_backend"]

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
_ONE = {"input_ids": 1, "noise_index": 1}
_STATIC = {"screen": _ONE, "taps": _ONE}  # a dynamic batch costs a tenth and more


def open_backend(
    name: str = "openvino",  # noqa: ARG001
    *,
    threads: int | None = None,
    precision: Precision | None = None,
    device: int = 0,  # noqa: ARG001
) -> OpenVino:
    """The CPU backend.

    Raises:
        BackendUnavailable: openvino is not installed, or the processor lacks the precision.
    """
    return OpenVino(threads=threads, precision=precision)


def import_openvino() -> ModuleType:
    """The `openvino` package, without the usage reports that its import sends to its maker.

    Raises:
        BackendUnavailable: it is not installed.
    """
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment]  # openvino then uses its own stub
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise missing("openvino", error) from None
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before


class OpenVino:
    """Compiles graphs with OpenVINO for the CPU.

    `precision` is what the CPU computes in; differences and norms stay in float32, since the graph
    says so.
    """

    def __init__(self, *, threads: int | None = None, precision: Precision | None = None) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._version = openvino.__version__
        self._precision: Precision = precision or "float32"
        self.name = f"openvino:{precision}" if precision else "openvino"
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _CAPABILITIES[self._precision] not in able:
            raise BackendUnavailable(
                f"OpenVINO has no {self._precision} on this processor (it has {', '.join(able)}). "
                "Use the backend openvino, which computes in float32."
            )
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _TYPES[self._precision],
        }
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._engines: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()
        self._process = OwnProcess(self)

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Compile a graph from its verified bytes; the second call returns the first's engine.

        Raises:
            BackendError: OpenVINO refuses the graph.
        """
        self._process.check()
        with self._lock:
            key = (bundle.id, graph)
            if key not in self._engines:
                engine = _Compiled(self._compile(bundle, graph), self._process)
                self._engines[key] = _each_pair(engine) if graph in _STATIC else engine
            return self._engines[key]

    def close(self) -> None:
        """Let go of every engine; in a fork nothing is taken down."""
        if self._process.here:
            with self._lock:
                self._engines.clear()

    def _compile(self, bundle: Bundle, graph: str) -> Any:
        file = bundle.manifest.graphs[graph]
        try:
            with _private_copy(bundle, file) as path:
                model = self._core.read_model(path)
                if graph in _STATIC:
                    model.reshape(
                        {
                            name: [size, *list(model.input(name).partial_shape)[1:]]
                            for name, size in _STATIC[graph].items()
                        }
                    )
                compiled = self._core.compile_model(model, "CPU", self._options)
        except (RuntimeError, OSError) as error:
            raise BackendError(
                f"OpenVINO {self._version} cannot load {bundle.path / file}: {error}. "
                "Use the backend onnxruntime, or export the model again."
            ) from None
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != self._options["INFERENCE_PRECISION_HINT"]:
            raise BackendUnavailable(
                f"Asked OpenVINO for {self._precision}, it computes in {actual}. "
                "Use the backend openvino, which computes in float32."
            )
        return compiled


@contextmanager
def _private_copy(bundle: Bundle, graph: str) -> Iterator[Path]:
    """OpenVINO finds weights by path only: a copy of what was verified, for as long as it reads."""
    with ExitStack() as stack:
        try:
            made = tempfile.TemporaryDirectory(prefix="mnemoscope-")
            folder = Path(stack.enter_context(made))
            for name in (graph, *bundle.data_files()):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bundle.read(name))
        except OSError as error:
            raise BackendError(
                f"OpenVINO needs a copy of {bundle.path / graph} and its weights among the "
                f"temporary files, and there it cannot be written: {error}. Free some space, or "
                "set TMPDIR to a directory that has it."
            ) from None
        yield folder / graph


class _Compiled:
    """A compiled model as an engine; every thread that calls gets a request of its own."""

    def __init__(self, compiled: Any, process: OwnProcess) -> None:
        self._compiled = compiled
        self._process = process
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        self._process.check()
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(dict(inputs))
            return [np.array(request.get_tensor(name).data) for name in outputs]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise BackendError(f"OpenVINO failed: {error}") from None
        finally:
            self._idle.put(request)


def _each_pair(engine: Engine) -> Engine:
    """A graph of the first step for any number of prompts and noises, on an engine for one each."""

    def run(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        ids, noises = inputs["input_ids"], inputs["noise_index"]
        pairs = [
            engine({"input_ids": row[None], "noise_index": noise[None]}, outputs)
            for row in ids
            for noise in noises
        ]  # [1, 1, ...] each
        return [
            np.array([value[0, 0] for value in values], np.float32).reshape(
                len(ids), len(noises), *values[0].shape[2:]
            )
            for values in zip(*pairs, strict=True)
        ]

    return run

"""OpenVINO on the CPU: bfloat16 where the processor has it."""

from __future__ import annotations

import importlib
import os
import queue
import sys
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailable
from ..manifest import Precision
from .base import Arrays, Backend, Engine, OwnProcess
from .copying import private_copy
from .cover import NOISES
from .openvino_gathers import bound_gathers
from .table import missing

__all__ = ["OpenVino", "import_openvino"]

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
_STATIC = ("screen", "taps")  # one prompt on one noise: a dynamic batch costs a tenth and more


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


class OpenVino(Backend):
    """Runs graphs that OpenVINO compiles for the CPU.

    Args:
        threads: CPU threads, or OpenVINO's choice.
        precision: What the CPU computes in; differences and norms stay in float32, since the graph
            says so.

    Raises:
        BackendUnavailable: openvino is not installed, or the processor lacks the precision.
    """

    def __init__(self, *, threads: int | None = None, precision: Precision | None = None) -> None:
        super().__init__()
        openvino = import_openvino()
        _check_process()
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

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        """Compile a graph from its verified bytes.

        Raises:
            BackendError: OpenVINO refuses the graph.
            BackendUnavailable: it would compute in another precision.
        """
        engine = _Compiled(self._compile(bundle, graph), self.process)
        return _each_pair(engine) if graph in _STATIC else engine

    def _compile(self, bundle: Bundle, graph: str) -> Any:
        file = bundle.manifest.graphs[graph]
        try:
            with private_copy("OpenVINO", bundle, file) as path:
                model = self._core.read_model(path)
                bound_gathers(model)
                if graph in _STATIC:
                    model.reshape(
                        {each.any_name: [1, *list(each.partial_shape)[1:]] for each in model.inputs}
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
        noises = inputs[NOISES]
        told = {name: each for name, each in inputs.items() if name != NOISES}
        count = len(next(iter(told.values())))
        pairs = [
            engine({n: a[k : k + 1] for n, a in told.items()} | {NOISES: noise[None]}, outputs)
            for k in range(count)
            for noise in noises
        ]  # [1, 1, ...] each
        if any(value.shape[:2] != (1, 1) for pair in pairs for value in pair):
            raise BackendError(
                f"{', '.join(outputs)} of one prompt on one noise came without a row for it. "
                "Export the model again."
            )
        return [
            np.concatenate(values).reshape(count, len(noises), *values[0].shape[2:])
            for values in zip(*pairs, strict=True)
        ]

    return run


def _check_process() -> None:
    """OpenVINO's threads are not copied by a fork, and what it opens then may wait for them."""
    if (first := _first_process()) != os.getpid():
        raise BackendError(
            f"OpenVINO was opened in process {first}, of which this one ({os.getpid()}) is a fork: "
            "it may wait forever for threads that are not here. Open it in no process that forks, "
            "but in its children; start workers by spawning; or use the backend onnxruntime."
        )


@cache
def _first_process() -> int:
    """The process that was the first to open OpenVINO, of this one and those it was forked from."""
    return os.getpid()

"""What Triton's Python backend loads and calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Backend, BackendOptions
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.backends.served import Served
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.errors import (
    BackendError,
    BackendUnavailable,
    InputError,
    MnemoscopeError,
)

from ...detector import Detector
from ...screening.detection import Detection
from ..probing import check_probes
from ..service.answer import columns, judged
from ..service.v2.tensors import decode_contents
from ..settling import screen_each
from .graph import graph_model
from .options import ModelOptions
from .repository import BUNDLE

__all__ = ["Model"]


class Model(Closing):
    """Screens the prompts of a batch of requests. A request that cannot be answered fails alone.

    Triton gathers batches; no verdict depends on what else is in one (`settling`).
    """

    def __init__(self, detector: Detector, options: ModelOptions, triton: Any) -> None:
        """Take a detector over: `close` closes it.

        Args:
            detector: What measures.
            options: How, and what is shown.
            triton: The module `triton_python_backend_utils`.

        Raises:
            CalibrationError: there are no verdicts in this setting.
            InputError: steps or noises cannot be used.
        """
        detector.calibrated(steps=options.steps, noises=options.noises)
        self.detector, self.options, self._triton = detector, options, triton
        self._probed = options.calls is None  # by `open`; other models answer only later

    @classmethod
    def open(cls, args: Mapping[str, str], triton: Any) -> Model:
        """Open the bundle in the model's folder, and measure its probes.

        Args:
            args: What Triton tells `initialize`.
            triton: As of `Model`.

        Raises:
            BackendUnavailable: numpy is too new for Triton.
            NumericsError: the engine is further from PyTorch than the bundle allows.
            MnemoscopeError: what `Detector.load` raises.
        """
        _check_numpy(np.__version__)
        config = json.loads(args["model_config"])
        told = {key: each["string_value"] for key, each in config.get("parameters", {}).items()}
        options = ModelOptions.of(told)
        if args["model_instance_kind"] == "GPU":  # of several, each has an instance
            options = replace(options, device=int(args["model_instance_device_id"]))
        backend: str | Backend = options.backend
        told_to = options.told
        if options.calls is not None:
            ask = partial(_ask, triton, graph_model(args["model_name"]))
            backend, told_to = Served(options.backend, options.calls, ask), BackendOptions()
        detector = Detector.load(
            Path(args["model_repository"]) / args["model_version"] / BUNDLE,
            backend=backend,
            **asdict(told_to),
            detector=options.detector,
            trust=options.trust,
        )
        try:
            if options.calls is None:
                check_probes(detector)
            return cls(detector, options, triton)
        except BaseException:
            detector.close()
            raise

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each of Triton's requests, in order."""
        asked = [self._prompts(request) for request in requests]
        every = [prompt for each in asked if isinstance(each, list) for prompt in each]
        found = iter(self._screen(every))
        return [
            self._answer(islice(found, len(each))) if isinstance(each, list) else self._error(each)
            for each in asked
        ]

    def close(self) -> None:
        """Let go of the engines."""
        self.detector.close()

    def _prompts(self, request: Any) -> list[str] | MnemoscopeError:
        """The prompts of a request, or why it cannot be answered."""
        given = self._triton.get_input_tensor_by_name(request, "prompt").as_numpy()
        try:
            prompts = list(decode_contents(given.ravel(), given.size))
            self.detector.screener.tokenizer.check(prompts)
        except InputError as error:
            return error
        return prompts

    def _screen(self, prompts: list[str]) -> list[Detection | MnemoscopeError]:
        if not prompts:
            return []
        try:
            if not self._probed:
                check_probes(self.detector)
            self._probed = True
        except MnemoscopeError as error:
            return [error] * len(prompts)
        return screen_each(self.detector, prompts, self.options.steps, self.options.noises)

    def _answer(self, found: Iterable[Detection | MnemoscopeError]) -> Any:
        try:
            told = columns(judged(found), show_scores=self.options.show_scores)
        except MnemoscopeError as error:
            return self._error(error)
        return self._triton.InferenceResponse(
            [self._triton.Tensor(each.output.name, each.array().reshape(-1, 1)) for each in told]
        )

    def _error(self, error: MnemoscopeError) -> Any:
        kind = self._triton.TritonError
        code = kind.INVALID_ARG if isinstance(error, InputError) else kind.INTERNAL
        return self._triton.InferenceResponse(error=kind(str(error), code))


def _ask(
    triton: Any, model: str, inputs: Arrays, outputs: tuple[str, ...]
) -> list[NDArray[np.float32]]:
    """Have another of Triton's models run the graph.

    Raises:
        BackendError: it is not there, or failed.
    """
    request = triton.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[triton.Tensor(name, np.ascontiguousarray(each)) for name, each in inputs.items()],
        preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise BackendError(
            f"Triton's model {model} failed: {response.error().message()}. See whether it is "
            "loaded, and Triton's log."
        )
    return [triton.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]


def _check_numpy(version: str) -> None:
    """Triton's Python backend reads texts from memory in a way that numpy 2 no longer has.

    Raises:
        BackendUnavailable: numpy is 2 or later.
    """
    if int(version.partition(".")[0]) >= 2:
        raise BackendUnavailable(
            f"Triton's Python backend garbles prompts with numpy {version}. Install numpy 1.26 in "
            "the environment that the model runs in: `pip install 'numpy<2'`."
        )

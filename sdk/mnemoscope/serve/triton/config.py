"""`config.pbtxt` of the model, in protobuf's text format (Triton's `model_config.proto`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mnemoscope_runtime.errors import InputError

from ..service.answer import DEFAULT, OUTPUTS
from .options import ModelOptions

__all__ = ["ENVIRONMENT", "WARMUP", "Scheduling", "config_text"]

WARMUP = "prompt"  # file in the model's folder `warmup`
ENVIRONMENT = "EXECUTION_ENV_PATH"  # a parameter of Triton's Python backend
_BATCH = 8, 32  # on CPUs, which gain little beyond; on GPUs


@dataclass(frozen=True)
class Scheduling:
    """How Triton runs the model.

    Attributes:
        batch: The most prompts at a time, and in a request; 8 by default, on a GPU 32.
        instances: Processes, each with engines of its own.
        environment: Folder or archive of the Python environment to run in, on the machine that
            serves; by default Triton's own Python with its site-packages.

    Raises:
        InputError: one of them cannot be used.
    """

    batch: int | None = None
    instances: int = 1
    environment: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("batch", self.batch), ("instances", self.instances)):
            if value is not None and (type(value) is not int or not 1 <= value <= 4096):
                raise InputError(f"{name} is {value!r:.40}. Give a whole number from 1 to 4096.")


def config_text(name: str, options: ModelOptions, scheduling: Scheduling) -> str:
    """The whole of `config.pbtxt`.

    A queue policy is left out on purpose: with any, lone requests wait for a timer of Triton's.
    Where another model runs the graph there is no warm-up: that one may not be there yet.
    """
    batch = scheduling.batch or _BATCH[options.on_gpu]
    parameters = options.parameters
    if scheduling.environment is not None:
        parameters[ENVIRONMENT] = scheduling.environment
    lines = [
        f"name: {_quoted(name)}",
        'backend: "python"',
        f"max_batch_size: {batch}",
        'input { name: "prompt" data_type: TYPE_STRING dims: [ 1 ] }',
        *(
            f'output {{ name: "{output}" data_type: TYPE_{OUTPUTS[output].datatype} dims: [ 1 ] }}'
            for output in DEFAULT
        ),
        "dynamic_batching { }",
        f"instance_group {{ count: {scheduling.instances} {_kind(options)} }}",
        *(_warmup(size) for size in sorted({1, batch}) if options.calls is None),
        *_parameters(parameters),
    ]
    return "\n".join([*lines, ""])


def _kind(options: ModelOptions) -> str:
    here = options.on_gpu and options.calls is None
    return f"kind: KIND_GPU gpus: [ {options.device or 0} ]" if here else "kind: KIND_CPU"


def _warmup(size: int) -> str:
    return (
        f'model_warmup {{ name: "{size}" batch_size: {size} inputs {{ key: "prompt" value '
        f'{{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "{WARMUP}" }} }} }}'
    )


def _parameters(parameters: Mapping[str, str]) -> Iterable[str]:
    for key, value in parameters.items():
        yield f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    """A string in text format, which is UTF-8 and knows JSON's short escapes."""
    return json.dumps(text, ensure_ascii=False)

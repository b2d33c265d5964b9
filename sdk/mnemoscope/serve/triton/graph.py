"""The screening graph as a model of its own, which a backend of Triton's runs.

Triton's ensembles pass tensors from model to model and cannot go back: they could not measure a
prompt again that lies at its threshold, nor gather batches, since the noises are not by prompts.
So the model in Python calls this one (Triton's business logic scripting).
"""

from __future__ import annotations

from pathlib import Path

from mnemoscope_runtime import BackendError, Bundle, InputError
from mnemoscope_runtime.backends.tensorrt.files import PlanKey, folder_of, keys, read_plan

from ...prompts.printable import counted
from .options import ModelOptions

__all__ = ["graph_config", "graph_files", "graph_model"]

_BACKENDS = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "tensorrt": "tensorrt",
}
_CALLS = 32  # prompts that a graph of ONNX Runtime is given at a time


def graph_model(name: str) -> str:
    """What the graph's model is called, beside the one that clients ask."""
    return f"{name}_screen"


def graph_config(name: str, bundle: Bundle, options: ModelOptions) -> str:
    """`config.pbtxt` of the graph's model, which takes calls of all sizes and gathers none."""
    manifest = bundle.manifest
    width = manifest.tokenizer.length * (1 if manifest.tokenizer_2 is None else 2)
    kind = f"KIND_GPU gpus: [ {options.device or 0} ]" if options.on_gpu else "KIND_CPU"
    return "\n".join(
        [
            f'name: "{graph_model(name)}"',
            f'backend: "{_BACKENDS[options.backend]}"',
            "max_batch_size: 0",
            f'input {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1, {width} ] }}',
            'input { name: "noise_index" data_type: TYPE_INT64 dims: [ -1 ] }',
            'output { name: "magnitude" data_type: TYPE_FP32 dims: [ -1, -1 ] }',
            f"instance_group {{ count: 1 kind: {kind} }}",
            "",
        ]
    )


def graph_files(bundle: Bundle, options: ModelOptions) -> tuple[dict[str, bytes], int]:
    """What Triton's backend reads, by name, and the most prompts that one call takes.

    Raises:
        InputError: no backend of Triton's measures so.
        BackendError: there is no plan of the graph that takes calls of all sizes.
    """
    if options.backend not in _BACKENDS or options.detector != "magnitude" or options.steps != 1:
        raise InputError(
            f"Triton has no backend of its own for {options.detector} at "
            f"{counted(options.steps, 'step')} with {options.backend}. Use the magnitude at one "
            f"step with one of: {', '.join(_BACKENDS)}; or leave --by-triton out."
        )
    if bundle.manifest.encodes_apart:
        raise InputError(
            f"The screening graph of {bundle.path} takes what its text encoder says, and Triton's "
            "backend hands on token ids. Leave --by-triton out."
        )
    if others := [name for name in options.told.given if name not in ("device", "engines")]:
        raise InputError(
            f"Triton's backend is not told {others[0]} by Mnemoscope. Leave --{others[0]} out, and "
            "see Triton's documentation."
        )
    if options.backend != "tensorrt":
        graph = bundle.manifest.graphs["screen"]
        weights = {name: bundle.read(name) for name in bundle.data_files()}
        return {"model.onnx": bundle.read(graph), **weights}, _CALLS
    folder = folder_of(bundle.id, options.engines)
    plan = _plan(folder, bundle, options)
    return {"model.plan": read_plan(folder, plan)}, plan.profiles[0].prompts[1]


def _plan(folder: Path, bundle: Bundle, options: ModelOptions) -> PlanKey:
    """The plan that takes the largest calls, of those that take calls of all sizes up to that."""
    noises = bundle.manifest.noise_bank.shape[0]
    found = [
        key
        for _, key in keys(folder, options.trust)
        if isinstance(key, PlanKey)
        and (key.backend, key.bundle, key.graph) == ("tensorrt", bundle.id, "screen")
        and [(each.prompts[0], each.noises) for each in key.profiles] == [(1, (1, noises))]
    ]
    if not found:
        raise BackendError(
            f"There is no plan of screen in {folder} that takes calls of all sizes. "
            "`mnemoscope build BUNDLE --backend tensorrt --batch 32` builds one on the GPU that "
            "is to run it; Triton must have the same version of TensorRT."
        )
    return max(found, key=lambda key: key.most)

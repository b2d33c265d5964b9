"""What clients may read of a service and its models, as JSON has it; gRPC says the same."""

from __future__ import annotations

from typing import Any

from mnemoscope_runtime import __version__

from ..answer import OUTPUTS, outputs
from ..models import VERSION, Model
from ..options import ServiceOptions
from ..statistics import Spent
from .tensors import INPUT

__all__ = ["EXTENSIONS", "INFER", "config", "metadata", "server", "statistics"]

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
_TYPES = {"FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "BOOL": "TYPE_BOOL", "BYTES": "TYPE_STRING"}

INFER: dict[str, Any] = {  # for OpenAPI: the body of an infer request that has no binary part
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["name", "shape", "datatype", "data"],
                                "properties": {
                                    "name": {"const": INPUT},
                                    "shape": {"type": "array", "items": {"type": "integer"}},
                                    "datatype": {"const": "BYTES"},
                                    "data": {"type": "array", "items": {"type": "string"}},
                                },
                            },
                        },
                        "outputs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"name": {"enum": list(OUTPUTS)}},
                            },
                        },
                    },
                },
                "example": {
                    "inputs": [
                        {"name": INPUT, "shape": [1], "datatype": "BYTES", "data": ["a cat"]}
                    ]
                },
            }
        },
    }
}


def server() -> dict[str, Any]:
    """Of the service."""
    return {"name": "mnemoscope", "version": __version__, "extensions": EXTENSIONS}


def metadata(name: str, options: ServiceOptions) -> dict[str, Any]:
    """Of a model."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "mnemoscope",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": each.name, "datatype": each.datatype, "shape": [-1]}
            for each in outputs(show_scores=options.show_scores).values()
        ],
    }


def config(name: str, options: ServiceOptions) -> dict[str, Any]:
    """Of a model, in the words of Triton's ModelConfig: the part that says something here."""
    return {
        "name": name,
        "platform": "mnemoscope",
        "backend": options.backend,
        "max_batch_size": 0,  # the first dimension is the client's own, and not added to shapes
        "input": [{"name": INPUT, "data_type": "TYPE_STRING", "dims": [-1]}],
        "output": [
            {"name": each.name, "data_type": _TYPES[each.datatype], "dims": [-1]}
            for each in outputs(show_scores=options.show_scores).values()
        ],
    }


def statistics(model: Model) -> dict[str, Any]:
    """Of a model, since the service started.

    Making tensors of requests and answers is not measured, and has no time; it is counted, since
    perf_analyzer wants the three counts to be the same.
    """
    totals = model.statistics.totals()
    return {
        "name": model.source.name,
        "version": VERSION,
        "last_inference": totals.last,
        "inference_count": totals.prompts,
        "execution_count": totals.batches,
        "inference_stats": {
            "success": _spent(totals.success),
            "fail": _spent(totals.fail),
            "queue": _spent(totals.queue),
            **_computed(totals.engine),
        },
        "batch_stats": [
            {"batch_size": size, **_computed(spent)} for size, spent in totals.sizes.items()
        ],
    }


def _computed(engine: Spent) -> dict[str, dict[str, int]]:
    around = _spent(Spent(engine.count))
    return {"compute_input": around, "compute_infer": _spent(engine), "compute_output": around}


def _spent(spent: Spent) -> dict[str, int]:
    return {"count": spent.count, "ns": spent.ns}

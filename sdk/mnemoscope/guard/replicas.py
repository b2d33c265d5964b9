"""A second pipeline of the same weights, so that two can draw at the same time."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

from mnemoscope_runtime.errors import InputError

from .networks import plain
from .pipelines import Guarded

__all__ = ["replicate"]

Pipeline = TypeVar("Pipeline")


def replicate(pipe: Pipeline) -> Pipeline:
    """Another pipeline with parts of its own (scheduler, tokenizers, networks), not guarded.

    Its networks have the very weights of the first one's: it takes next to no memory. What is not
    a weight is its own: adapters' scales, attention, hooks. So the two can be drawn with in two
    threads, each under its own guard; a pipeline by itself cannot, nor can two that share a
    scheduler, a tokenizer or a network.

    Args:
        pipe: A pipeline of diffusers, all of it in memory; guarded or not, and not drawing.

    Raises:
        InputError: it is compiled, quantised, or offloaded.
    """
    found = copy.copy(pipe)
    if isinstance(pipe, Guarded):
        found.__class__ = type(pipe).__bases__[-1]  # before it was guarded
    shared: dict[int, Any] = {}
    parts = pipe.components  # type: ignore[attr-defined]
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            shared |= _shared(name, part)
    for name, part in parts.items():
        setattr(found, name, copy.deepcopy(part, shared))
    return found


def _shared(name: str, part: nn.Module) -> dict[int, Any]:
    """What stands for every tensor in a copy: another one with the same memory."""
    if plain(part) is not part or any(each._compiled_call_impl for each in part.modules()):
        raise InputError(f"{name} is compiled. Replicate the pipeline first, then compile each.")
    found: dict[int, Any] = {}
    offloaded = any(hasattr(each, "_hf_hook") for each in part.modules())
    for path, value in (*part.named_parameters(), *part.named_buffers()):
        if value.is_meta or offloaded:
            raise InputError(
                f"{name} is offloaded, and what moves its weights serves one pipeline. Replicate "
                "pipelines that are in memory as a whole, or draw with one at a time."
            )
        if type(value) not in (nn.Parameter, Tensor, nn.Buffer):
            raise InputError(
                f"{name}.{path} is a {type(value).__name__} (quantised?), and sharing those was "
                "never tried. Load a pipeline for every thread."
            )
        again = value.detach()
        if isinstance(value, nn.Parameter):
            again = nn.Parameter(again, requires_grad=value.requires_grad)
        found[id(value)] = again
    return found

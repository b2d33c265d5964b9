"""A request's own callbacks, which may look at what is drawn and not exchange it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .conditioning import Arguments
from .refusing import through

__all__ = ["overseen"]

_END, _INPUTS, _OLD = "callback_on_step_end", "callback_on_step_end_tensor_inputs", "callback"
_LATENTS = "latents"


def overseen(pipe: Any, told: Arguments) -> dict[str, Any]:
    """A request's arguments that say what is called after every step, and a look at what that does.

    What is drawn is to be what the sampler makes of what was looked at: a callback that changes
    latents, sizes, a mask or a masked picture, in place or by returning others, is an InputError,
    and so is one that exchanges the sampler. Embeddings are compared where the network is told.

    Args:
        pipe: The pipeline.
        told: Arguments of its call, by name.
    """
    found: dict[str, Any] = {}
    if (end := told.get(_END)) is not None:
        ready = isinstance(end, PipelineCallback | MultiPipelineCallbacks)
        wanted = end.tensor_inputs if ready else told.get(_INPUTS, [_LATENTS])
        found[_END] = _at_the_end(end, wanted)
        found[_INPUTS] = list(
            dict.fromkeys((*wanted, *getattr(pipe, "_callback_tensor_inputs", ())))
        )
    if (old := told.get(_OLD)) is not None:
        found[_OLD] = _in_the_old_way(pipe, old)
    return found


def _at_the_end(callback: Callable[..., Any], wanted: list[str]) -> Callable[..., Any]:
    def call(pipe: Any, step: int, t: Any, has: dict[str, Any]) -> Any:
        with _unchanged(pipe, step, has) as now:
            found = callback(pipe, step, t, {name: has[name] for name in wanted})
            now |= {name: found[name] for name in has.keys() & found.keys()}
        return found

    return call


def _in_the_old_way(pipe: Any, callback: Callable[..., Any]) -> Callable[..., None]:
    def call(step: int, t: Any, latents: Tensor) -> None:
        with _unchanged(pipe, step, {_LATENTS: latents}):
            callback(step, t, latents)

    return call


@contextmanager
def _unchanged(pipe: Any, step: int, has: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Around a callback that is given these; what the pipeline goes on with is to be put in."""
    kept = {
        name: value.clone()
        for name, value in has.items()
        if isinstance(value, Tensor) and not name.endswith("embeds")
    }
    sampler, methods = pipe.scheduler, _methods(pipe.scheduler)
    now = dict(has)
    yield now
    changed = [name for name, was in kept.items() if not _same(name, was, now[name])]
    if pipe.scheduler is not sampler or _methods(sampler) != methods:
        changed.append("scheduler")
    if changed:
        with through():
            raise InputError(
                f"A callback of this request changed its {', '.join(changed)} after step {step}: "
                "what is drawn is then not what the sampler makes of what the guard looks at. Draw "
                "without that callback, or detach the guard for this request."
            )


def _same(name: str, was: Tensor, now: Any) -> bool:
    """Whether a tensor is the same; but for latents also those rows of it that are the prompts'."""
    if not isinstance(now, Tensor) or (now.dtype, now.device) != (was.dtype, was.device):
        return False
    if name != _LATENTS and now.ndim and len(now) < len(was):  # guidance was dropped
        was = was[-len(now) :]
    return now.shape == was.shape and torch.allclose(now, was, rtol=0, atol=0, equal_nan=True)


def _methods(scheduler: Any) -> dict[str, Any]:
    """Of a sampler, those that were replaced."""
    kind = type(scheduler)
    return {
        name: each for name, each in vars(scheduler).items() if callable(getattr(kind, name, 0))
    }

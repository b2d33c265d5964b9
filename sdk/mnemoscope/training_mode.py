"""What a network does otherwise while it is trained, so that two passes of it do not compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

__all__ = ["differing", "in_training"]

# chances by the names that torch, diffusers, transformers, timm and torchvision give them
_CHANCES = ("p", "dropout", "drop_prob", "layerdrop")


def in_training(layer: nn.Module) -> str | None:
    """What a layer by itself does otherwise in training mode, in words; None if nothing.

    Dropout, stochastic depth, random slopes and norms over the batch. Gradient checkpointing
    computes the same.
    """
    if not layer.training:
        return None
    chance = max(_number(vars(layer).get(name)) for name in _CHANCES)
    if chance > 0:
        return f"drops values at random ({chance:g})"
    if isinstance(layer, nn.RReLU):
        return "has slopes that are drawn at random"
    if isinstance(layer, _BatchNorm):
        return "normalises over the other samples of a batch"
    if isinstance(layer, _NormBase) and layer.track_running_stats:
        return "learns its averages of every pass"
    return None


def differing(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Layers of a network that compute otherwise in training mode: their path, and what they do.

    Adapters of peft that are not active compute nothing.
    """
    for path, layer in _used(network):
        if (what := in_training(layer)) is not None:
            yield path, what


def _used(layer: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    yield path, layer
    adapters = _active(layer)
    for name, child in layer.named_children():
        where = f"{path}.{name}" if path else name
        if adapters is not None and isinstance(child, nn.ModuleDict):
            for adapter in adapters & child.keys():
                yield from _used(child[adapter], f"{where}.{adapter}")
        else:
            yield from _used(child, where)


def _active(layer: Any) -> set[str] | None:
    """Adapters of a layer of peft that it computes; None of other layers."""
    if not (type(layer).__module__.startswith("peft.tuners.") and hasattr(layer, "base_layer")):
        return None
    return set() if layer.disable_adapters or layer.merged else set(layer.active_adapters)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value <= 1 else 0.0

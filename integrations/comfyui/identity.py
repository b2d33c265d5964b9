"""Which model ComfyUI draws with: hashes of weights, and of the patches (LoRA) on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .covered import named

__all__ = ["PLAIN", "Identity", "state_of"]

PLAIN = "plain"


@dataclass(frozen=True)
class Identity:
    """A model and its text encoder.

    Attributes:
        model: A hash of both's weights and of how they are built.
        state: What is patched, of model and text encoder, in words and hashes.
    """

    model: str
    state: str

    @classmethod
    def of(cls, patcher: Any, clip: Any) -> Identity:
        """Read every weight once: some seconds for gigabytes.

        Args:
            patcher: ComfyUI's MODEL.
            clip: Its CLIP.

        Raises:
            InputError: a patch is of a kind that no hash is known for.
        """
        found = hashlib.sha256()
        for part in (patcher, clip.patcher):
            found.update(_built(part.model).encode())
            for name, patches in sorted(part.get_key_patches().items()):
                found.update(f"{name} {_hashed(patches[0][0])}\n".encode())
        found.update(type(clip.tokenizer).__name__.encode())
        return cls(found.hexdigest(), state_of(patcher, clip))


def state_of(patcher: Any, clip: Any) -> str:
    """What is patched, and how the text encoder reads.

    Raises:
        InputError: a patch is of a kind that no hash is known for.
    """
    parts = {"model": _patched(patcher), "clip": _patched(clip.patcher)}
    parts["clip layer"] = "" if clip.layer_idx is None else str(clip.layer_idx)
    parts["tokenizer"] = "".join(f"{k}={v} " for k, v in sorted(clip.tokenizer_options.items()))
    return "; ".join(f"{k} {v.strip()}" for k, v in parts.items() if v) or PLAIN


def _hashed(value: Tensor) -> str:
    """Of type, shape and values.

    Raises:
        InputError: it is no plain tensor.
    """
    if type(value) not in (Tensor, torch.nn.Parameter):
        raise InputError(
            f"The guard cannot tell what this model predicts: its weights are {named(value)}, and "
            "not plain tensors. No calibration covers that. Use a model file that is not "
            "quantised, or screen the prompt with a bundle before it is drawn."
        )
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.data).hexdigest()}"


def _built(model: Any) -> str:
    """How a network is built, where its weights do not say so."""
    config = getattr(getattr(model, "model_config", None), "unet_config", {})
    kept = {k: v for k, v in config.items() if k not in ("dtype", "device")}
    return f"{type(model).__name__} {json.dumps(kept, sort_keys=True, default=repr)}\n"


def _patched(patcher: Any) -> str:
    """How many weights are patched and a hash of how; empty for none."""
    if not patcher.patches:
        return ""
    found = hashlib.sha256()
    for name, patches in sorted(patcher.patches.items(), key=lambda each: str(each[0])):
        found.update(f"{name} ".encode())
        for text in _spelled(patches):
            found.update(text.encode())
    # calibrations hold these words: they stay as they are
    return f"patched ({len(patcher.patches)} weights, {found.hexdigest()[:8]})"


def _spelled(value: Any) -> Iterator[str]:
    """A patch as text, tensors by their hashes.

    Raises:
        InputError: it holds something whose effect no text can tell.
    """
    if isinstance(value, Tensor):
        yield f"{_hashed(value)} "
    elif value is None or isinstance(value, bool | int | float | str | torch.dtype):
        yield f"{value!r} "
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield f"{key}: "
            yield from _spelled(value[key])
    elif isinstance(value, set | frozenset):
        yield f"{sorted(map(str, value))} "
    elif isinstance(value, Sequence):
        yield f"{len(value)}["
        for each in value:
            yield from _spelled(each)
    elif hasattr(value, "weights") and hasattr(value, "calculate_weight"):  # a weight adapter
        yield f"{type(value).__name__} "
        yield from _spelled(value.weights)
    elif callable(value) and not getattr(value, "__closure__", None):
        yield f"{named(value)} "
    else:
        raise InputError(
            f"The guard cannot tell what a patch on this model does: it holds {named(value)}. No "
            "calibration covers that. Take the node out that adds it, or screen the prompt with a "
            "bundle before it is drawn."
        )

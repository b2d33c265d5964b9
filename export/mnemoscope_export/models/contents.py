"""Weights by what they hold, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mnemoscope_runtime.errors import ExportError

__all__ = ["content", "file_sha256", "tensors"]


def content(tensor: Tensor, dtype: torch.dtype = torch.float32) -> str:
    """A hash of a tensor's values in a dtype, in order and without its shape."""
    if tensor.is_meta:  # no values at all: a loader left it out
        return "none"
    values = tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=16).hexdigest()


def tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every key of a safetensors file with its tensor.

    Raises:
        ExportError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                yield key, file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"{path} cannot be read: {error}. Give a safetensors file; copy it again if it is one."
        ) from None


def file_sha256(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

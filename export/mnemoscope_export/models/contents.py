"""Weights by what they hold, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mnemoscope_runtime.errors import ExportError

__all__ = ["content", "file_sha256", "lfs_pointer", "tensors"]

_POINTER = b"version https://git-lfs"


def content(tensor: Tensor, dtype: torch.dtype = torch.float32) -> str:
    """A hash of a tensor's values in a dtype, in order and without its shape."""
    if tensor.is_meta:  # no values at all: a loader left it out
        return "none"
    values = tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=16).hexdigest()


def tensors(path: Path, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Tensor]]:
    """Every key of a safetensors file with its tensor, as it is there.

    Args:
        path: The file.
        dtype: What its values have to be finite in.

    Raises:
        ExportError: the file is missing or damaged, or a value is NaN or infinite.
    """
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(key)
                if not tensor.to(dtype).isfinite().all():
                    raise ExportError(
                        f"{path} holds values that are NaN or infinite in {dtype}: {key}. Copy it "
                        "again; if it stays so, it was damaged when it was trained or converted."
                    )
                yield key, tensor
    except (OSError, SafetensorError) as error:
        lfs_pointer(path)
        raise ExportError(
            f"{path} cannot be read: {error}. Give a safetensors file; copy it again if it is one."
        ) from None


def lfs_pointer(path: Path) -> None:
    """Make sure that a file is not Git's note of where the file is.

    Raises:
        ExportError: it is.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ExportError(
                f"{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in the "
                "model's directory, or download the file."
            )


def file_sha256(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What a pipeline cannot compute because its parts have different dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from mnemoscope_runtime.errors import InputError, MnemoscopeError

from .families import Family

__all__ = ["dtypes", "explained"]


def dtypes(pipe: Any) -> dict[str, str]:
    """Of each part that has weights, by its name. diffusers computes in those."""
    parts = {name: part for name, part in vars(pipe).items() if isinstance(part, nn.Module)}
    found = {name: str(getattr(part, "dtype", "")) for name, part in parts.items()}
    return {name: dtype.removeprefix("torch.") for name, dtype in found.items() if dtype}


@contextmanager
def explained(pipe: Any, family: Family) -> Iterator[None]:
    """Around a call of a pipeline: what torch says of two dtypes is said of the parts.

    Whether several go together is diffusers' to say, and `torch.autocast`'s: Stable Diffusion XL's
    first text encoder may have one of its own, and the second may not.

    Raises:
        InputError: torch could not compute with two dtypes, and the parts have several.
    """
    try:
        yield
    except RuntimeError as error:
        found, why = dtypes(pipe), str(error).partition("\n")[0]
        ours = isinstance(error, MnemoscopeError)
        if ours or len(set(found.values())) < 2 or "type" not in why:
            raise
        parts = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise InputError(
            f"diffusers cannot draw with this pipeline: its parts have different dtypes ({parts}), "
            f"and torch refused to compute with two: {why.rstrip('.')}. Give all parts one, "
            f"`pipe.to(torch.{found[family.network]})`, or call the pipeline under "
            "`torch.autocast`; then calibrate it so."
        ) from error

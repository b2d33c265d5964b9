"""Initial noises x_T, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["noise_bank", "standard_noises"]


def standard_noises(noises: int, shape: tuple[int, int, int], seed: int) -> NDArray[np.float32]:
    """Standard normal noises from numpy's PCG64: noise i does not depend on how many there are.

    Returns:
        # [noises, C, H, W]
    """
    streams = np.random.SeedSequence(seed).spawn(noises)
    return np.stack(
        [np.random.default_rng(stream).standard_normal(shape, np.float32) for stream in streams]
    )


def noise_bank(noises: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """`standard_noises` as a tensor.

    Returns:
        # [noises, C, H, W], fp32
    """
    import torch

    return torch.from_numpy(standard_noises(noises, shape, seed))

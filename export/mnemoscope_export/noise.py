"""Initial noises x_T, the same on every machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["noise_bank"]


def noise_bank(noises: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Standard normal noises from numpy's PCG64: noise i does not depend on how many there are.

    Returns:
        # [noises, C, H, W], fp32
    """
    streams = np.random.SeedSequence(seed).spawn(noises)
    bank = [np.random.default_rng(stream).standard_normal(shape, np.float32) for stream in streams]
    return torch.from_numpy(np.stack(bank))

"""Counting the arithmetic of a graph: the floor below which no engine of that precision gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops"]


@torch.no_grad()
def count_flops(graph: nn.Module, inputs: Sequence[Any]) -> int:
    """Floating-point operations of one forward pass: convolutions, matrix products, attention.

    Attention runs as plain matrix products while it is counted: the counter does not see the fused
    kernel of the CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        graph(*inputs)
    return int(counter.get_total_flops())

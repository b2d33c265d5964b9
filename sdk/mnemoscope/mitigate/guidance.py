"""No guidance, or the opposite, until it no longer leads to a memory (Jain et al., CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .sampling import Plan, Task

__all__ = ["Guidance"]


@dataclass(frozen=True)
class Guidance:
    """Guidance of another scale before the transition point, the usual one after it.

    Attributes:
        before: Scale before it: 0 for none, below 0 for the opposite.
        until: Timestep of the transition point, in 1..1000; None finds it on the way, where the
            magnitude has its first local minimum.
    """

    before: float = 0.0
    until: int | None = None
    name: str = "guidance"

    def __post_init__(self) -> None:
        if self.until is not None and not 1 <= self.until <= 1000:
            raise InputError(
                f"The transition point is a timestep between 1 and 1000, not {self.until}; None "
                "finds it."
            )

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        usual = task.scale

        def schedule(t: float, magnitudes: Tensor) -> Tensor:
            before = ~_past_minimum(magnitudes)
            if self.until is not None:
                before = torch.full_like(before, t > self.until)
            return torch.where(before, self.before, usual)

        return replace(task.plan(), schedule=schedule)


def _past_minimum(magnitudes: Tensor) -> Tensor:
    """Whether each sample's magnitude has fallen and then risen. # [step, B] -> [B]"""
    changes = magnitudes.diff(dim=0)
    fell_then_rose = (changes[:-1] < 0) & (changes[1:] > 0)
    return fell_then_rose.any(0)

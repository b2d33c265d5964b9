"""Two strategies at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .sampling import Plan, Task

__all__ = ["Chain"]


class _Strategy(Protocol):
    @property
    def name(self) -> str: ...

    def plan(self, task: Task) -> Plan: ...


@dataclass(frozen=True)
class Chain:
    """What every one of them changes; each plans with the noise that the ones before left.

    Attributes:
        strategies: They must not change the same thing, but for the noise.
    """

    strategies: Sequence[_Strategy]

    @property
    def name(self) -> str:
        """For results."""
        return "-".join(each.name for each in self.strategies)

    def plan(self, task: Task) -> Plan:
        """See `Strategy`.

        Raises:
            InputError: two of them change the same thing.
        """
        whole = plain = task.plan()
        for strategy in self.strategies:
            plan = strategy.plan(replace(task, noises=whole.latents))
            changed: dict[str, Any] = {
                "latents": plan.latents,
                "passes": whole.passes + plan.passes,
            }
            for name in ("model", "embeds", "schedule", "limit", "steer", "prompts"):
                value, mine, before = (getattr(each, name) for each in (plan, whole, plain))
                if _same(value, before):
                    continue
                if not _same(mine, before):
                    raise InputError(
                        f"{strategy.name!r} changes the {name} too. Chain strategies that change "
                        "different things."
                    )
                changed[name] = value
            whole = replace(whole, **changed)
        return whole


def _same(one: object, other: object) -> bool:
    if not (isinstance(one, tuple) and isinstance(other, tuple)):
        return one is other
    # embeddings of one text, computed twice
    return all(isinstance(a, Tensor) and torch.equal(a, b) for a, b in zip(one, other, strict=True))

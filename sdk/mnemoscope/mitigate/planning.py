"""Plans of strategies, which may be anybody's: checked before anything is drawn."""

from __future__ import annotations

from mnemoscope_runtime.errors import InputError

from .sampling import Plan, Task
from .strategies import Strategy

__all__ = ["checked", "planned"]


def checked(strategy: Strategy) -> Strategy:
    """A strategy, if it is one."""
    if (
        isinstance(strategy, type)
        or not callable(getattr(strategy, "plan", None))
        or not hasattr(strategy, "name")
    ):
        raise InputError(
            f"{strategy!r:.200} is no strategy: an object with a name and a method `plan`. "
            "`Kit.make` makes one by its name."
        )
    return strategy


def planned(strategy: Strategy, task: Task) -> Plan:
    """The strategy's plan, if it is one that can be drawn."""
    plan = checked(strategy).plan(task)
    if not isinstance(plan, Plan):
        raise InputError(
            f"{strategy.name!r} planned a {type(plan).__name__}, which is no Plan. Change "
            "`task.plan()` with `dataclasses.replace` and return that."
        )
    usual = task.plan()
    pairs = zip((plan.latents, *plan.embeds), (usual.latents, *usual.embeds), strict=False)
    if len(plan.embeds) != len(usual.embeds) or any(a.shape != b.shape for a, b in pairs):
        raise InputError(
            f"{strategy.name!r} planned latents of shape {list(plan.latents.shape)} and embeddings "
            f"of {[list(each.shape) for each in plan.embeds]}, where {list(usual.latents.shape)} "
            f"and {[list(each.shape) for each in usual.embeds]} are needed. Keep the shapes."
        )
    return plan

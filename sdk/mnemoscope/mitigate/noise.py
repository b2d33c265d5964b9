"""Another noise near the one drawn, by gradient (Han et al. 2025; SAIL, Jeon et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from mnemoscope_export import magnitude_of

from ..drawing.gradient_descent import Descent, descend
from .sampling import Plan, Task

__all__ = ["Noise"]


@dataclass(frozen=True)
class Noise:
    """Adam on x_T until the magnitude at the first step meets the target; the prompt stays.

    After every iteration x_T is given its length back, since the model knows only noise of that
    length; SAIL penalises the length instead.

    Attributes:
        target: Magnitude at the first step to come down to, in the model's unit.
        rate: Adam's learning rate.
        iterations: At most so many.
    """

    target: float
    rate: float = 0.05
    iterations: int = 10
    name: str = "noise"

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        model, plan = task.model, task.plan()
        t = task.timesteps()[0].item()
        start = task.noises.to(model.network.device)
        length = start.flatten(1).norm(dim=1)[:, None, None, None]
        empty = tuple(each.expand(len(start), *each.shape[1:]) for each in model.embed_empty())

        def loss(x: Tensor) -> Tensor:
            uncond = model.predict_in_unit(x, t, empty)
            return magnitude_of(model, plan.embeds, x, t, uncond)

        def project(x: Tensor) -> Tensor:
            found: Tensor = x * length / x.flatten(1).norm(dim=1)[:, None, None, None]
            return found

        found = descend(
            loss, start, Descent(self.target, self.rate, self.iterations), project=project
        )
        return replace(plan, latents=found.value, passes=6 * found.iterations)

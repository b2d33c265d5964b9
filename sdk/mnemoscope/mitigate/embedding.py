"""Another embedding near the prompt's, by gradient (Wen et al., ICLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from mnemoscope_export import Embeds, magnitude_of, unconditional

from ..drawing.gradient_descent import Descent, descend, prompted
from .sampling import Plan, Task

__all__ = ["Embedding"]


@dataclass(frozen=True)
class Embedding:
    """Adam on the conditional embedding at the first step, until the magnitude meets the target.

    Every sample has an embedding of its own and one norm. The first token, CLIP's start, is left
    alone. Pooled embeddings, which Stable Diffusion XL, 3 and FLUX.1 also read, are left alone too.

    Attributes:
        target: Magnitude at the first step to come down to, in the model's unit.
        rate: Adam's learning rate.
        iterations: At most so many.
    """

    target: float
    rate: float = 0.05
    iterations: int = 10
    name: str = "embedding"

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        model, plan = task.model, task.plan()
        t = task.timesteps()[0].item()
        start = task.noises.to(model.network.device)
        uncond = unconditional(model, start, t)
        first, *others = plan.embeds

        def embeds(value: Tensor) -> Embeds:
            return value, *others

        def loss(value: Tensor) -> Tensor:
            return magnitude_of(model, embeds(value), start, t, uncond)

        descent = Descent(self.target, self.rate, self.iterations)
        found = descend(loss, first, descent, free=prompted(first))
        return replace(plan, embeds=embeds(found.value), passes=1 + 3 * found.iterations)

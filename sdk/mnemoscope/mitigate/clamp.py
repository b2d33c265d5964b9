"""Updates of the latents held to the lengths that benign prompts have ("Broken Memories", 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from .sampling import Painter, Plan, Sampling, Task, draw_benign

__all__ = ["Clamp"]


@dataclass(frozen=True)
class Clamp:
    """No update of x is longer than mean + width std of benign ones at that step.

    Attributes:
        mean: Of || x_{t-1} - x_t ||_2 at every step. # [steps]
        std: Likewise. # [steps]
        width: Standard deviations; below 0 it holds updates to less than the benign mean.
        steps: Only in the first so many; None for all.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: float = 0.0
    steps: int | None = None
    name: str = "clamp"

    @classmethod
    def learn(
        cls,
        painter: Painter,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        width: float = 0.0,
        steps: int | None = None,
    ) -> Clamp:
        """Draw benign prompts and see how long their updates are.

        Args:
            painter: The model.
            prompts: Some that it did not memorise; the paper takes 50.
            sampling: As pictures will be drawn: lengths of other settings do not fit.
            width: See `Clamp`.
            steps: See `Clamp`.

        Raises:
            InputError: fewer than two prompts.
        """
        found = draw_benign(painter, prompts, sampling).updates.cpu().double().numpy()
        mean, std = found.mean(0).tolist(), found.std(0).tolist()
        return cls(tuple(mean), tuple(std), width, steps)

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        if len(self.mean) != task.sampling.steps:
            raise InputError(
                f"These lengths are of pictures drawn in {counted(len(self.mean), 'step')}, not in "
                f"{task.sampling.steps}. Learn them again."
            )
        longest = torch.tensor(self.mean) + self.width * torch.tensor(self.std)
        longest = longest.clamp(min=0)

        def limit(step: int, update: Tensor) -> Tensor:
            if self.steps is not None and step >= self.steps:
                return update
            length = update.float().flatten(1).norm(dim=1)
            factor = (longest[step].to(length) / length.clamp(min=1e-12)).clamp(max=1)
            held: Tensor = update * factor.to(update)[:, None, None, None]
            return held

        return replace(task.plan(), limit=limit)

"""Another embedding near the prompt's at every early step, by gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemoscope_export import Embeds, magnitude_of
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from ..drawing.gradient_descent import Descent, descend, prompted
from .sampling import Painter, Plan, Sampling, Steered, Task, draw_benign

__all__ = ["Stepwise"]


@dataclass(frozen=True)
class Stepwise:
    """The descent of `Embedding`, at every step whose magnitude is above that of benign prompts.

    Wen et al. (2024) descend at the first step alone; a picture can still be recited from there,
    as its magnitudes then show. Here each step goes on with the embedding that the one before left,
    and a sample whose magnitude is low enough is left alone.

    Attributes:
        targets: Magnitude to come down to at each of the first steps; steps after
            these are left alone.
        steps: That pictures are drawn in.
        rate: Adam's learning rate.
        iterations: At most so many at every step.
    """

    targets: tuple[float, ...]
    steps: int
    rate: float = 0.05
    iterations: int = 3
    name: str = "stepwise"

    @classmethod
    def learn(
        cls,
        painter: Painter,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        quantile: float = 0.5,
        until: int = 600,
    ) -> Stepwise:
        """Draw benign prompts, and see what magnitudes they have on the way.

        Args:
            painter: The model.
            prompts: Some that it did not memorise, two or more.
            sampling: As pictures will be drawn: magnitudes of other settings do not fit.
            quantile: Share of benign prompts whose magnitude is no higher than the target.
            until: Steps at timesteps above it are looked at, in 1..1000.

        Raises:
            InputError: an argument cannot be used.
        """
        timesteps = painter.task(prompts[:1], [0], sampling).timesteps()
        magnitudes = draw_benign(painter, prompts, sampling).magnitudes
        return cls.of(magnitudes, timesteps, quantile=quantile, until=until)

    @classmethod
    def of(
        cls,
        magnitudes: Tensor,
        timesteps: Tensor,
        *,
        quantile: float = 0.5,
        until: int = 600,
        iterations: int = 3,
        name: str = "stepwise",
    ) -> Stepwise:
        """From what benign prompts have on the way.

        Args:
            magnitudes: # [B, steps]
            timesteps: # [steps]
            quantile: See `learn`.
            until: See `learn`.
            iterations: See `Stepwise`.
            name: See `Stepwise`.

        Raises:
            InputError: an argument cannot be used.
        """
        if not 0 < quantile < 1 or not 1 <= until <= 1000:
            raise InputError(
                "A share of benign prompts lies between 0 and 1, and the last timestep looked at "
                f"between 1 and 1000, unlike {quantile} and {until}."
            )
        early = magnitudes[:, : int((timesteps > until).sum())]
        targets = tuple(early.double().quantile(quantile, dim=0).tolist())
        return cls(targets, len(timesteps), iterations=iterations, name=name)

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        if self.steps != task.sampling.steps:
            raise InputError(
                f"These magnitudes are of pictures drawn in {counted(self.steps, 'step')}, not in "
                f"{task.sampling.steps}. Learn them again."
            )
        model, timesteps = task.model, task.timesteps().tolist()

        def steer(
            step: int, x: Tensor, embeds: Embeds, eps_uncond: Tensor, magnitudes: Tensor
        ) -> Steered | None:
            if step >= len(self.targets) or not (magnitudes > self.targets[step]).any():
                return None
            first, *others = embeds

            def loss(value: Tensor) -> Tensor:
                return magnitude_of(model, (value, *others), x, timesteps[step], eps_uncond)

            descent = Descent(self.targets[step], self.rate, self.iterations)
            with torch.enable_grad():
                found = descend(loss, first, descent, free=prompted(first))
            return Steered((found.value, *others), 3 * found.iterations)

        return replace(task.plan(), steer=steer)

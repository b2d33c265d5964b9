"""What strategies have in common, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .attention import Attention
from .chain import Chain
from .clamp import Clamp
from .embedding import Embedding
from .guidance import Guidance
from .leave_out import LeaveOut
from .noise import Noise
from .padding import Padding
from .sampling import Painter, Plan, Sampling, Task, draw_benign, first_magnitudes
from .stepwise import Stepwise
from .words import RandomWords, random_prompts
from .yardstick import Yardstick

__all__ = ["LADDER", "STRATEGIES", "Kit", "Plain", "Strategy"]


class Strategy(Protocol):
    """A way to draw something else than the training picture."""

    @property
    def name(self) -> str:
        """For results."""

    def plan(self, task: Task) -> Plan:
        """What to sample in place of the task.

        Raises:
            InputError: the model, or the task, is not one it can be used on.
            NumericsError: something became NaN or infinite.
        """


@dataclass(frozen=True)
class Plain:
    """No strategy: what is to be drawn, drawn."""

    name: str = "none"

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        return task.plan()


@dataclass(frozen=True)
class Kit:
    """Makes strategies by name, with the settings of docs/mitigation.md.

    Attributes:
        painter: The model.
        yardstick: Where targets come from; without a calibration, from benign prompts ...
        target: ... unless this is one.
        benign: Prompts that the model did not memorise, to learn from what is usual; by default
            twenty of random words.
        sampling: How pictures are drawn; None as diffusers' pipeline of the family does.
    """

    painter: Painter
    yardstick: Yardstick = field(default_factory=Yardstick)
    target: float | None = None
    benign: Sequence[str] = ()
    sampling: Sampling | None = None

    def make(self, name: str) -> Strategy:
        """The strategy of that name.

        Raises:
            InputError: there is none.
        """
        if name not in STRATEGIES:
            raise InputError(
                f"There is no strategy {name!r}. Choose one of: {', '.join(STRATEGIES)}."
            )
        return STRATEGIES[name](self)

    def target_at(self, quantile: float) -> float:
        """The target given, or the share of benign prompts' magnitudes at the first step."""
        if self.target is not None:
            return self.target
        if self.yardstick.first is not None:
            return self.yardstick.target(quantile)
        return float(np.quantile(self._first, quantile))

    @cached_property
    def usual(self) -> Sequence[str]:
        """Prompts to learn from: those given, or of random words."""
        return self.benign or random_prompts(self.painter.model)

    @cached_property
    def clamp(self) -> Clamp:
        """Learnt once."""
        return Clamp.learn(self.painter, self.usual, self.sampling)

    @cached_property
    def stepwise(self) -> Stepwise:
        """To the median, as far as timestep 600."""
        return Stepwise.of(*self._way)

    @cached_property
    def firm(self) -> Stepwise:
        """Further down, longer, and with more iterations."""
        return Stepwise.of(*self._way, quantile=0.25, until=300, iterations=5, name="stepwise-firm")

    @cached_property
    def _way(self) -> tuple[Tensor, Tensor]:
        """Magnitudes of benign prompts on the way [B, steps], and the timesteps: drawn once."""
        timesteps = self.painter.task(self.usual[:1], [0], self.sampling).timesteps()
        return draw_benign(self.painter, self.usual, self.sampling).magnitudes, timesteps

    @cached_property
    def _first(self) -> list[float]:
        """Measured once."""
        return first_magnitudes(self.painter, self.usual, self.sampling)


STRATEGIES: dict[str, Callable[[Kit], Strategy]] = {
    "embedding": lambda kit: Embedding(kit.target_at(0.25)),
    "stepwise": lambda kit: kit.stepwise,
    "stepwise-firm": lambda kit: kit.firm,
    "guidance": lambda _: Guidance(until=600),
    "embedding-guidance": lambda kit: Chain((Embedding(kit.target_at(0.5)), Guidance(until=800))),
    "noise": lambda kit: Noise(kit.target_at(0.5)),
    "leave-out": lambda kit: LeaveOut(kit.target_at(0.5)),
    "leave-out-stepwise": lambda kit: Chain((LeaveOut(kit.target_at(0.5)), kit.stepwise)),
    "padding": lambda _: Padding(),
    "attention": lambda _: Attention(),
    "clamp": lambda kit: kit.clamp,
    "random-tokens": lambda _: RandomWords("tokens"),
    "random-words": lambda _: RandomWords("words"),
    "random-numbers": lambda _: RandomWords("numbers"),
}
"""What makes each strategy, by its name."""
# what `auto` tries in turn
LADDER = ("stepwise", "stepwise-firm", "embedding", "leave-out-stepwise")
"""What `auto` tries, in this order."""

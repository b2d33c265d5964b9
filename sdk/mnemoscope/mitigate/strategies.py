"""What strategies have in common, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from mnemoscope_runtime.errors import InputError

from .attention import Attention
from .chain import Chain
from .clamp import Clamp
from .embedding import Embedding
from .guidance import Guidance
from .noise import Noise
from .padding import Padding
from .sampling import USUAL, Painter, Plan, Sampling, Task
from .stepwise import Stepwise
from .words import RandomWords
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
        yardstick: Where targets come from ...
        target: ... unless this is one.
        benign: Prompts that the model did not memorise, for `stepwise` and `clamp`.
        sampling: How pictures are drawn.
    """

    painter: Painter
    yardstick: Yardstick = field(default_factory=Yardstick)
    target: float | None = None
    benign: Sequence[str] = ()
    sampling: Sampling = USUAL

    def make(self, name: str) -> Strategy:
        """The strategy of that name.

        Raises:
            InputError: there is none, or what it needs is missing.
            CalibrationError: it needs a target, and no calibration says one.
        """
        if name not in STRATEGIES:
            raise InputError(
                f"There is no strategy {name!r}. Choose one of: {', '.join(STRATEGIES)}."
            )
        return STRATEGIES[name](self)

    def target_at(self, quantile: float) -> float:
        """The target given, or the share of benign prompts' magnitudes."""
        return self.yardstick.target(quantile) if self.target is None else self.target

    @cached_property
    def clamp(self) -> Clamp:
        """Learnt once."""
        return Clamp.learn(self.painter, self._benign("clamp"), self.sampling)

    @cached_property
    def stepwise(self) -> Stepwise:
        """Learnt once."""
        return Stepwise.learn(self.painter, self._benign("stepwise"), self.sampling)

    def _benign(self, name: str) -> Sequence[str]:
        if not self.benign:
            raise InputError(
                f"`{name}` holds drawing to what benign prompts have on the way, and there are "
                "none to learn that from. Give some: `Kit(benign=...)`, or --benign FILE."
            )
        return self.benign


STRATEGIES: dict[str, Callable[[Kit], Strategy]] = {
    "embedding": lambda kit: Embedding(kit.target_at(0.25)),
    "stepwise": lambda kit: kit.stepwise,
    "guidance": lambda _: Guidance(until=600),
    "embedding-guidance": lambda kit: Chain((Embedding(kit.target_at(0.5)), Guidance(until=800))),
    "noise": lambda kit: Noise(kit.target_at(0.5)),
    "padding": lambda _: Padding(),
    "attention": lambda _: Attention(),
    "clamp": lambda kit: kit.clamp,
    "random-tokens": lambda _: RandomWords("tokens"),
    "random-words": lambda _: RandomWords("words"),
    "random-numbers": lambda _: RandomWords("numbers"),
}
LADDER = ("embedding", "stepwise", "noise", "guidance")  # that `auto` tries in turn

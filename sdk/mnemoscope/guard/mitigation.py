"""What a guard can do about a flagged image: other embeddings for its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..drawing.gradient_descent import Descent, descend, prompted
from .calibrating import measure
from .watching import Magnitude

__all__ = [
    "EmbeddingOptimization",
    "Flagged",
    "GuardMitigation",
    "StepMitigation",
    "StepwiseOptimization",
]


@dataclass(frozen=True)
class Flagged:
    """The flagged images of a request, at the first step, from their own noise.

    Attributes:
        prompts: Their texts; None where the request gave embeddings.
        embeds: What the network was told. # [B, L, D]
        magnitude: Embeddings [B, L, D] to magnitudes [B] in the family's unit, fp32, with their
            graph; one pass of the network.
        benign: The calibration's benign scores, ascending. # [n]
        threshold: Its threshold.
    """

    prompts: tuple[str | None, ...]
    embeds: Tensor
    magnitude: Magnitude
    benign: NDArray[np.float64]
    threshold: float


class GuardMitigation(Protocol):
    """Makes other embeddings, with which the request is drawn anew and looked at again."""

    def __call__(self, flagged: Flagged) -> Tensor:
        """Embeddings for the flagged images; gradients are on. # [B, L, D]"""


@runtime_checkable
class StepMitigation(GuardMitigation, Protocol):
    """One that also changes them on the way."""

    @property
    def until(self) -> float:
        """It is not asked at timesteps below."""

    def steer(
        self,
        timestep: float,
        embeds: Tensor,
        magnitudes: Tensor,
        magnitude: Magnitude,
    ) -> Tensor | None:
        """Other embeddings for the flagged images from this step on; gradients are on.

        Args:
            timestep: t
            embeds: What the network was just told. # [B, L, D]
            magnitudes: What came of it, in the family's unit, fp32. # [B]
            magnitude: Other embeddings to their magnitudes [B] at this step, with their graph; one
                pass of the network. # [B, L, D] -> [B]

        Returns:
            # [B, L, D], or None to go on with the same
        """


@dataclass(frozen=True)
class EmbeddingOptimization:
    """Wen et al. (ICLR 2024), section 4: Adam on the embedding until the magnitude is benign.

    The start token's embedding, which no prompt changes, is left alone; every image stops at the
    target by itself. What is lowered is the score that flagged the image: that it passes the guard
    afterwards says little, see docs/guard.md for what is left of copies. Through the network, which
    therefore must not be offloaded layer by layer.

    Attributes:
        learning_rate: Of Adam.
        iterations: At most so many, a forward and a backward pass each.
        quantile: Of the benign scores: the target.
    """

    learning_rate: float = 0.05
    iterations: int = 10
    quantile: float = 0.25

    def __call__(self, flagged: Flagged) -> Tensor:
        """Optimise; see `GuardMitigation`.

        Raises:
            NumericsError: a magnitude or its gradient is NaN or infinite.
        """
        target = float(np.quantile(flagged.benign, self.quantile))
        descent = Descent(target, self.learning_rate, self.iterations)
        return _descended(flagged.magnitude, flagged.embeds, descent)


@dataclass(frozen=True)
class StepwiseOptimization:
    """The same descent at every early step whose magnitude is above that of benign prompts.

    See `mnemoscope.mitigate.Stepwise`. Takes no pass of its own where nothing is above.

    Attributes:
        targets: Timestep to the magnitude to come down to there.
        learning_rate: Of Adam.
        iterations: At most so many at every step, a forward and a backward pass each.
    """

    targets: Mapping[float, float]
    learning_rate: float = 0.05
    iterations: int = 3

    @classmethod
    def learn(
        cls,
        pipe: Any,
        benign: Sequence[str],
        *,
        steps: int,
        quantile: float = 0.5,
        **options: Any,
    ) -> StepwiseOptimization:
        """Send benign prompts through the pipeline, and see what magnitudes they have on the way.

        Args:
            pipe: The pipeline, not guarded.
            benign: Prompts that the model did not memorise; 20 or more.
            steps: Steps to look at, two fifths of those that a request makes (20 of 50).
            quantile: Share of benign prompts whose magnitude is no higher than the target.
            **options: What requests will give the pipeline, and `negative_prompt`, `extra_pass`,
                `seed`, `batch` and `progress` of `calibrate_guard`.

        Raises:
            InputError: no prompts, or the pipeline cannot be watched.
            NumericsError: a magnitude is NaN or infinite.
        """
        if not benign or not 0 < quantile < 1:
            raise InputError(
                "Targets are a share, between 0 and 1, of the magnitudes of benign prompts. Give "
                "some prompts, and such a quantile."
            )
        measured, _ = measure(pipe, benign, steps=steps, **options)
        rows = np.concatenate([np.array(each.magnitudes) for each in measured], axis=1)
        targets = np.quantile(rows, quantile, axis=1).tolist()  # [steps]
        return cls(dict(zip(measured[0].timesteps, targets, strict=True)))

    @property
    def until(self) -> float:
        """See `StepMitigation`."""
        return min(self.targets)

    def __call__(self, flagged: Flagged) -> Tensor:
        """What the request said: all is done on the way."""
        return flagged.embeds

    def steer(
        self,
        timestep: float,
        embeds: Tensor,
        magnitudes: Tensor,
        magnitude: Magnitude,
    ) -> Tensor | None:
        """See `StepMitigation`.

        Raises:
            CalibrationError: nothing was learnt of this timestep.
            NumericsError: a magnitude or its gradient is NaN or infinite.
        """
        if timestep not in self.targets:
            raise CalibrationError(
                f"What benign prompts have at timestep {timestep:g} was not learnt: this request "
                "has other timesteps. Learn again with the scheduler and the number of steps that "
                "requests have: `StepwiseOptimization.learn`."
            )
        target = self.targets[timestep]
        if not (magnitudes > target).any():
            return None
        return _descended(magnitude, embeds, Descent(target, self.learning_rate, self.iterations))


def _descended(magnitude: Magnitude, embeds: Tensor, descent: Descent) -> Tensor:
    start = embeds.float()
    return descend(magnitude, start, descent, free=prompted(start)).value


def checked(found: Tensor, embeds: Tensor) -> Tensor:
    """Embeddings that a mitigation found.

    Raises:
        InputError: they cannot be drawn with.
    """
    if found.shape != embeds.shape or not found.isfinite().all():
        raise InputError(
            f"The mitigation returned {tuple(found.shape)} for {tuple(embeds.shape)}, "
            "or NaN. It returns finite embeddings of the same shape."
        )
    return found.detach()

"""Do the pictures of several seeds agree more than those of a benign prompt do?

A memorised prompt draws one picture from every seed. That shows without the training picture and
whatever the magnitude is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..drawing.copy_detection import CopyDescriptor
from .sampling import Painter, Sampling, draw_benign

__all__ = ["Agreement", "Usual", "agreeing", "most_alike"]

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How alike unmitigated pictures of several seeds are.

    Attributes:
        highest: Cosine of the two that are most alike, in -1..1.
        usual: What two pictures of one benign prompt rarely exceed; None if the two are not even
            copies of each other by the descriptor's own threshold.
    """

    highest: float
    usual: float | None

    @property
    def recites(self) -> bool:
        """Whether the prompt seems to draw one picture from several seeds."""
        return self.usual is not None and self.highest > self.usual


@dataclass(frozen=True)
class Usual:
    """How alike two pictures of one benign prompt are to a descriptor: learnt when it is needed.

    Attributes:
        painter: The model.
        descriptor: What compares pictures.
        prompts: Some that the model did not memorise, two or more.
        sampling: How pictures are drawn.
    """

    painter: Painter
    descriptor: CopyDescriptor
    prompts: Sequence[str]
    sampling: Sampling | None = None

    @cached_property
    def likeness(self) -> NDArray[np.float64]:
        """Cosine of two pictures of every prompt, ascending. # [N]

        Raises:
            InputError: there are fewer than two prompts.
            NumericsError: something became NaN or infinite.
        """
        twice = [prompt for prompt in self.prompts for _ in range(2)]
        drawn = draw_benign(self.painter, twice, self.sampling)
        vectors = self.descriptor.describe(self.painter.pictures(drawn.latents))
        return np.sort((vectors[::2] * vectors[1::2]).sum(1).astype(np.float64))

    def bound(self, level: float) -> float:
        """A cosine that no more than this share of benign prompts exceed, in 0..1.

        As many as that share allows do exceed it, of 20 prompts one at a level of .05: words that
        nobody wrote may recite a picture all the same, and what they draw is not usual.
        """
        above = int(level * len(self.likeness))
        return float(self.likeness[-1 - above])

    def agreement(self, highest: float, level: float) -> Agreement:
        """What the pictures of one prompt from several seeds say.

        Args:
            highest: Cosine of the two that are most alike.
            level: Share of benign prompts that may be taken for recited ones, in 0..1.
        """
        known = self.descriptor.copied_above
        if known is not None and highest <= known:
            return Agreement(highest, None)
        bound = self.bound(level)
        return Agreement(highest, bound if known is None else max(bound, known))


def most_alike(vectors: Vectors) -> float:
    """Cosine of the two pictures that are most alike. # [S, D], S > 1"""
    return float(_others(vectors).max())


def agreeing(vectors: Vectors, above: float | None) -> list[Vectors]:
    """What the picture of each seed must not be like: its own unmitigated one, and all that agree.

    Args:
        vectors: Descriptors of the unmitigated pictures. # [S, D]
        above: A cosine above it says that two agree; None if nobody knows one.
    """
    alike = _others(vectors).max(1) > (1.0 if above is None else above)
    return [vectors[alike | (np.arange(len(vectors)) == i)] for i in range(len(vectors))]


def _others(vectors: Vectors) -> Vectors:
    """Cosines of pictures with each other, -1 with themselves. # [S, S]"""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return cosines

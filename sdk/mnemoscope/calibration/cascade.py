"""A cheap look first: the full one only at prompts that it cannot clear.

Of one prompt with scores s1 (first stage) and s2 (second stage), the joint score is

    s = floor - (level - s1)     if s1 <= level     (cleared: the second stage never looks)
    s = max(s2, floor)           otherwise

`level` comes from benign prompts other than those that the calibration compares with; `floor` is
the lowest s2 among those that it does compare with. So every cleared prompt ranks below every one
that is not, and those rank by s2, in its units. For given `level` s is one number like any other
score: the p-values and thresholds of `conformal` hold for both stages together. (`floor` only
merges what ranks below every s2 of the calibration, so that it changes no comparison with them.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.options import check_options

from ..detectors import Fit
from ..prompts.printable import counted
from .conformal import just_above

__all__ = ["First", "Gate", "level"]

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class First:
    """The first of two stages.

    Attributes:
        detector: Name of its statistic.
        steps: Denoising steps that it measures.
        noises: How many noises of the bank, the first ones.
        clear: Share of benign prompts that it is to clear, in 0..1.

    Raises:
        InputError: an option is of a wrong type, or there is no such share.
    """

    detector: str = "magnitude"
    steps: int = 1
    noises: int = 1
    clear: float = 0.9

    def __post_init__(self) -> None:
        check_options("text", first=self.detector)
        check_options("a whole number", first_steps=self.steps, first_noises=self.noises)
        check_options("a number", clear=self.clear)
        if not 0 < self.clear < 1:
            raise InputError(
                f"The share of benign prompts to clear lies between 0 and 1, --clear {self.clear} "
                "does not."
            )

    def __str__(self) -> str:
        return (
            f"{self.detector} at {counted(self.steps, 'step')} on {counted(self.noises, 'noise')}, "
            f"which clears {self.clear}"
        )

    @property
    def options(self) -> str:
        """Those of the command line."""
        return (
            f"--first {self.detector} --first-steps {self.steps} --first-noises {self.noises} "
            f"--clear {self.clear}"
        )


@dataclass(frozen=True)
class Gate:
    """What a cascade learned from benign prompts.

    Attributes:
        level: A first score at or below it clears a prompt.
        floor: Lowest second score of the calibration's benign prompts.
        fit: What the first stage's detector learned; None for one that does not.
    """

    level: float
    floor: float
    fit: Fit | None = None

    def joint(self, first: Scores, second: Scores) -> Scores:
        """One score of both stages.

        Args:
            first: First scores. # [prompt]
            second: Second scores of those above the level, in order. # [prompt not cleared]

        Returns:
            # [prompt], at most `floor` for those that are cleared
        """
        scores = self.floor - (self.level - first)
        scores[first > self.level] = np.maximum(second, self.floor)
        return np.asarray(scores, np.float64)


def level(benign: Scores, clear: float) -> float:
    """The lowest level that clears a share of benign prompts, and a hair, as for thresholds.

    Args:
        benign: Their first scores. # [prompt]
        clear: The share, in 0..1.
    """
    return just_above(float(np.sort(benign)[math.ceil(clear * len(benign)) - 1]))

"""Whether the prompts that come are still like those that were calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from .conformal import statistics

__all__ = ["Drift"]

_FEWEST = 20  # scores to tell by
Scores = NDArray[np.float64]  # [prompt]


@dataclass(frozen=True)
class Drift:
    """Whether recent prompts score higher than those that were calibrated on.

    Attributes:
        recent: How many recent scores there were.
        p_value: Of Mann and Whitney's one-sided test. A few memorised prompts among many move it
            little; benign ones that score higher than before do.
        level: Below it, it is time to calibrate again.
    """

    recent: int
    p_value: float
    level: float

    @property
    def drifted(self) -> bool:
        """Whether the threshold's promise should no longer be relied on."""
        return self.p_value < self.level

    @classmethod
    def of(cls, recent: Sequence[float], calibrated: Scores, level: float) -> Drift:
        """Compare recent scores with those of a calibration.

        Raises:
            InputError: too few scores to tell, or NaN among them.
        """
        scores = np.asarray(recent, np.float64)
        if len(scores) < _FEWEST or not np.isfinite(scores).all():
            nan = "" if len(scores) < _FEWEST else ", NaN among them,"
            raise InputError(
                f"{counted(len(scores), 'recent score')}{nan} cannot tell whether traffic "
                f"changed. Give {_FEWEST} or more."
            )
        test = statistics().mannwhitneyu(scores, calibrated, alternative="greater")
        return cls(len(scores), float(test.pvalue), level)

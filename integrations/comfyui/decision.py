"""What a guard decides of the images of one sampling, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from mnemoscope_runtime.errors import MnemoscopeError

__all__ = ["MODES", "Blocked", "Decision", "Mode", "Sampled"]

Mode = Literal["block", "black", "report"]
MODES: tuple[Mode, ...] = ("block", "black", "report")


@dataclass(frozen=True)
class Decision:
    """What was measured of one image.

    Attributes:
        index: In the batch.
        score: Mean magnitude over the steps looked at, >= 0, in eps units (of flows in those of
            the predicted picture).
        p_value: Share of benign requests, counting this one, that score as high; None without a
            calibration, or where nothing was compared.
        threshold: Above it the image counts as memorised; None without a calibration.
        memorized: score > threshold; None without a calibration, or where nothing was compared.
        compared: False where the prompt is the baseline, so that the score says nothing.
    """

    index: int
    score: float
    p_value: float | None
    threshold: float | None
    memorized: bool | None
    compared: bool

    def __str__(self) -> str:
        name = f"Image {self.index}"
        if not self.compared:
            return f"{name}: no verdict. The prompt is empty or the negative one."
        if self.threshold is None or self.p_value is None:
            return f"{name}: no verdict. Score {self.score:.4g}; nothing is calibrated."
        what = "memorised" if self.memorized else "not flagged"
        return (
            f"{name}: {what}. Score {self.score:.4g}, threshold {self.threshold:.4g}, p-value "
            f"{self.p_value:.2g}."
        )


@dataclass(frozen=True)
class Sampled:
    """What a guard saw of one sampling.

    Attributes:
        decisions: One for each image; none where it could not be measured.
        reason: Why not.
        hidden: Images that were not drawn: flagged ones of mode "black".
    """

    decisions: tuple[Decision, ...] = ()
    reason: str = ""
    hidden: tuple[int, ...] = ()

    @property
    def flagged(self) -> tuple[int, ...]:
        """Images that count as memorised."""
        return tuple(each.index for each in self.decisions if each.memorized)

    @property
    def clear(self) -> bool:
        """Whether every image was measured, judged and not flagged."""
        return bool(self.decisions) and all(each.memorized is False for each in self.decisions)

    @property
    def score(self) -> float:
        """The highest; NaN where nothing was measured."""
        return max((each.score for each in self.decisions), default=math.nan)

    def __str__(self) -> str:
        if self.reason:
            return f"Not measured: {self.reason}"
        return "\n".join(map(str, self.decisions))


class Blocked(MnemoscopeError):
    """A prompt is about to reproduce a training image, and is not drawn.

    Attributes:
        decisions: What was measured, of a guard one for each image.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, decisions: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.decisions = tuple(decisions)

"""Verdicts that do not depend on what else is in a batch.

Batches of other sizes round otherwise: a score moves by far less than the bundle's budget, which is
how far engines may be from PyTorch. Only a score nearer than that to its threshold could fall on
either side of it. Such a prompt is measured once more, by itself: its verdict is the one that
`Detector.screen([prompt])` gives.
"""

from __future__ import annotations

from collections.abc import Sequence

from mnemoscope_runtime.errors import MnemoscopeError

from ..calibration import Calibration
from ..detector import Detector
from ..screening.detection import Detection

__all__ = ["near", "screen_each", "screen_settled"]


def screen_each(
    detector: Detector, prompts: Sequence[str], steps: int, noises: int | None
) -> list[Detection | MnemoscopeError]:
    """As `screen_settled`, but that a prompt that cannot be measured fails alone.

    After an error each half is measured by itself, until it is known of which prompt it is.

    Returns:
        A detection of each prompt, or why there is none.
    """
    try:
        return list(screen_settled(detector, prompts, steps, noises))
    except MnemoscopeError as error:
        if len(prompts) == 1:
            return [error]
        half = len(prompts) // 2
        return [
            *screen_each(detector, prompts[:half], steps, noises),
            *screen_each(detector, prompts[half:], steps, noises),
        ]


def screen_settled(
    detector: Detector, prompts: Sequence[str], steps: int, noises: int | None
) -> list[Detection]:
    """As `Detector.screen`, but that no verdict depends on the other prompts.

    A cascade, whose first stage decides as well, measures each prompt by itself.

    Raises:
        InputError, NumericsError, CalibrationError: as `Detector.screen`.
    """
    if detector.first is not None:
        return [detector.screen([each], steps=steps, noises=noises)[0] for each in prompts]
    found = detector.screen(prompts, steps=steps, noises=noises)
    calibration = detector.calibrated(steps=steps, noises=noises)
    if calibration is None or len(found) == 1:
        return found
    budget = detector.screener.bundle.manifest.budget
    return [
        detector.screen([each.prompt], steps=steps, noises=noises)[0]
        if near(each.score, calibration, budget)
        else each
        for each in found
    ]


def near(score: float, calibration: Calibration, budget: float) -> bool:
    """Whether rounding could move a score across the threshold.

    The budget is relative: to the threshold, or to the spread of benign scores if that is larger,
    as where scores are sums of terms of either sign.
    """
    spread = float(calibration.ordered[-1] - calibration.ordered[0])
    return abs(score - calibration.threshold) <= budget * max(abs(calibration.threshold), spread)

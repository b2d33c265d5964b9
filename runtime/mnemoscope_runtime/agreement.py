"""How far a measured magnitude is from what it should be, as verdicts take it.

A magnitude is the norm of a difference of two predictions, || c - u ||. Each is rounded to 2^-23 of
its own size in float32, so their difference carries an error of about 2^-23 || eps || however small
it is: of a prompt that hardly matters, most digits are rounding, in any library. Such a magnitude
decides nothing either, since thresholds are scores of prompts that do matter.

An error therefore counts relative to the magnitude, or to the smallest magnitude that float32
measures to 1e-4 if that is larger:

    | found - wanted | / max(wanted, 2^-23 || eps || / 1e-4)

For every other prompt that is the relative error, and for these it allows one unit in the last
place of the predictions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["UNIT", "noise_norm", "relative_error", "smallest"]

UNIT = 2.0**-23  # float32's: the distance of 1 from the next number
_MEASURED_TO = 1e-4  # what the parity gate asks for in float32


def noise_norm(elements: int) -> float:
    """|| eps || of latents with so many elements: noise has unit variance."""
    return math.sqrt(elements)


def smallest(norm: float) -> float:
    """The smallest distance that float32 measures to 1e-4, of two vectors with this norm."""
    return UNIT * norm / _MEASURED_TO


def relative_error(found: ArrayLike, wanted: ArrayLike, floor: ArrayLike) -> NDArray[Any]:
    """| found - wanted | / max(wanted, floor), elementwise.

    Args:
        found: Magnitudes, or norms of taps.
        wanted: What they should be, of a shape that broadcasts.
        floor: `smallest` of them, likewise.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return np.asarray(np.abs(found - wanted) / np.maximum(wanted, floor))

"""From p-values to what is flagged, and what p-values that coarse can flag at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import CalibrationError
from mnemoscope_runtime.wording import counted

from ..prompts.near_duplicates import near_duplicates

__all__ = ["GROUPED", "READ", "group", "least", "limitation", "limits", "needed"]

GROUPED = 20_000  # flagged prompts that are grouped: seconds; time grows with the square
READ = 1000  # characters of a prompt that grouping and the report look at
P = NDArray[np.float64]


def limits(count: int, fdr: float, dependent: bool) -> P:
    """What the k-th smallest p-value is compared with: fdr k / (N c). # [k], for k = 1 .. N

    c = 1 for Benjamini and Hochberg, 1 + 1/2 + ... + 1/N for Benjamini and Yekutieli.
    """
    ranks = np.arange(1, count + 1, dtype=np.float64)
    return np.asarray(ranks * (fdr / (count * _penalty(count, dependent))), np.float64)


def least(count: int, benign: int, fdr: float, dependent: bool) -> int:
    """The fewest prompts that are flagged at a time, if any is: k with limit_k >= 1 / (n + 1)."""
    fewest = count * _penalty(count, dependent) / (fdr * (benign + 1))
    return max(1, math.ceil(fewest * (1 - 1e-12)))  # 1 / 20 <= 0.05, whatever rounding says


def needed(count: int, fdr: float, dependent: bool, hits: int) -> int:
    """How many benign prompts it takes to flag as few as `hits` of `count`."""
    return math.ceil(count * _penalty(count, dependent) / (fdr * hits) * (1 - 1e-12)) - 1


def limitation(count: int, benign: int, fdr: float, dependent: bool) -> str | None:
    """What so few benign prompts cannot tell, in words; None if they can tell of a single prompt.

    Raises:
        CalibrationError: whatever the scores, nothing would be flagged.
    """
    fewest = least(count, benign, fdr, dependent)
    smallest = (
        f"With {counted(benign, 'benign prompt')} no p-value is below {1 / (benign + 1):.2g}. At a "
        f"false-discovery rate of {fdr:.3g} among {counted(count, 'distinct prompt')} "
    )
    if fewest > count:
        few = max(1, count // 100)
        raise CalibrationError(
            f"{smallest}nothing would ever be flagged. Calibrate on "
            f"{counted(needed(count, fdr, dependent, count), 'benign prompt')} to flag them if "
            f"all are memorised, on {needed(count, fdr, dependent, few):,} to flag as few as "
            f"{few:,}; or ask for a higher --fdr."
        )
    if fewest == 1:
        return None
    return (
        f"{smallest}flags come {fewest:,} or more at a time: if fewer prompts stand out, none is "
        f"flagged. {counted(needed(count, fdr, dependent, 1), 'benign prompt')} "
        "would do for a single one, a k-th of that for k."
    )


def group(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Groups of near-duplicates, numbered from 1 in order of appearance. # [prompt]"""
    return near_duplicates([prompt[:READ] for prompt in prompts]) + 1


def _penalty(count: int, dependent: bool) -> float:
    return float((1 / np.arange(1, count + 1)).sum()) if dependent else 1.0

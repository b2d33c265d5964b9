"""What n benign scores can promise about the next one.

All of it rests on one assumption: that the prompts to come are drawn like the benign ones
(exchangeable with them). Then, whatever the distribution of scores,

    p = (1 + #{benign >= score}) / (n + 1)          P(p <= a) <= a for a benign prompt

(Vovk, Gammerman and Shafer 2005), and above the (j+1)-th largest benign score lies a share of
benign prompts that is Beta(j + 1, n - j) distributed or smaller, so that

    P(share <= fpr) >= 1 - delta     if and only if     P(Binomial(n, fpr) <= j) <= delta

A p-value is no probability that a prompt is memorised.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import counted, pip_install

__all__ = [
    "MARGIN",
    "allowed_above",
    "just_above",
    "lowest_threshold",
    "needed",
    "p_values",
    "proportion_interval",
    "rejected",
    "smallest_fpr",
    "statistics",
]

MARGIN = 1e-4  # what the parity gate allows: two engines may differ by that much on one prompt

_TIE = 1e-9  # a relative difference of delta that is rounding: machines are to agree on a tie
_LEAST = 1e-9  # the least rate to promise: a billion prompts

Scores = NDArray[np.floating[Any]]


def p_values(scores: Scores, benign: Scores) -> NDArray[np.float64]:
    """Conformal p-values: (1 + #{benign >= score}) / (n + 1).

    Args:
        scores: # [prompt]
        benign: Scores of benign prompts, in ascending order. # [n]

    Returns:
        # [prompt], in 1 / (n + 1) .. 1
    """
    at_least = len(benign) - np.searchsorted(benign, scores, "left")
    return np.asarray((1 + at_least) / (len(benign) + 1), np.float64)


def allowed_above(count: int, fpr: float, delta: float) -> int:
    """How many of `count` benign scores may lie above a threshold that promises `fpr`.

    The promise: with a probability of 1 - delta over the draw of the benign prompts, at most `fpr`
    of benign prompts to come score above it (Clopper and Pearson's bound).

    Raises:
        InputError: not even a threshold that no benign score exceeds can promise that.
    """
    if not (0 < fpr < 1 and 0 < delta < 1):
        raise InputError(
            f"Rates lie between 0 and 1: fpr {fpr} with delta {delta} do not. Give such rates."
        )
    if fpr < _LEAST:
        raise InputError(f"An fpr of {fpr:.3g} takes more prompts than there are. Ask for more.")
    most = math.log(delta) + _TIE
    above = int(np.searchsorted(_log_cdf(count, fpr), most, "right")) - 1
    if above < 0:
        least = smallest_fpr(count, delta) if count else 1.0
        raise InputError(
            f"{counted(count, 'benign prompt')} cannot promise a false-positive rate of {fpr:.3g} "
            f"with {1 - delta:.0%} confidence: that takes {needed(fpr, delta):,}. Give more, or "
            f"ask for an fpr of {math.ceil(least * 1e4) / 1e4:.4f} or more."
        )
    return above


def lowest_threshold(scores: Sequence[float], fpr: float, delta: float) -> float:
    """The lowest threshold that promises `fpr`: a benign score and a hair.

    Args:
        scores: Of benign prompts.
        fpr: As of `allowed_above`.
        delta: Likewise.

    Raises:
        InputError: as `allowed_above`.
    """
    above = allowed_above(len(scores), fpr, delta)
    return just_above(sorted(scores)[len(scores) - 1 - above])


def _log_cdf(count: int, rate: float) -> NDArray[np.float64]:
    """Logarithms of P(Binomial(count, rate) <= j) for j = 0 .. count - 1.

    Every calibration that is read asks for it, and SciPy is no part of what screens.
    """
    j = np.arange(count - 1)
    ratios = np.log((count - j) / (j + 1)) + (math.log(rate) - math.log1p(-rate))
    terms = np.concatenate([[count * math.log1p(-rate)], ratios]).cumsum()[:count]
    return np.asarray(np.logaddexp.accumulate(terms), np.float64)


def just_above(score: float) -> float:
    """A score and a hair (`MARGIN`, relative): rounding on another machine stays below it."""
    return score + MARGIN * abs(score)


def needed(fpr: float, delta: float) -> int:
    """The fewest benign prompts that can promise `fpr`: (1 - fpr)^n <= delta."""
    count = math.ceil(math.log(delta) / math.log1p(-fpr))
    return count - 1 if math.pow(1 - fpr, count - 1) <= delta else count


def smallest_fpr(count: int, delta: float) -> float:
    """The smallest false-positive rate that `count` benign prompts can promise."""
    return -math.expm1(math.log(delta) / count)


def proportion_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a proportion."""
    found = statistics().binomtest(hits, count).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)


def rejected(p: Scores, fdr: float, *, dependent: bool = False) -> NDArray[np.bool_]:
    """Which prompts to flag so that at most `fdr` of those flagged are benign, on average.

    Benjamini and Hochberg's procedure; conformal p-values that share their benign scores depend
    on each other in a way that it allows (Bates et al. 2023, "Testing for outliers with conformal
    p-values"). `dependent`: Benjamini and Yekutieli's, which holds for any dependence.

    Args:
        p: p-values. # [prompt]
        fdr: False-discovery rate, in 0..1.
        dependent: Whether to allow any dependence.

    Raises:
        InputError: no rate, or NaN among the p-values.
    """
    if not 0 < fdr < 1:
        raise InputError(f"A false-discovery rate lies between 0 and 1, {fdr} does not.")
    if not np.isfinite(p).all():
        raise InputError("There is NaN among the p-values. Screen these prompts again.")
    if not len(p):
        return np.zeros(0, bool)
    adjusted = statistics().false_discovery_control(p, method="by" if dependent else "bh")
    return np.asarray(adjusted <= fdr, np.bool_)


def statistics() -> ModuleType:
    """scipy.stats.

    Raises:
        BackendUnavailable: SciPy is not installed.
    """
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise BackendUnavailable(
            f"Calibrating, auditing and evaluating need SciPy: {error}. Install it with "
            f"{pip_install('calibrate')}."
        ) from None

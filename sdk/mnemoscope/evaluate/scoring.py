"""Scores of both lists in every setting of every detector."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import InputError, NumericsError

from ..calibration.making import learn
from ..detector import Detector
from ..detectors import Features, Statistic, find_statistic
from ..prompts.printable import counted
from ..screening.stages import checked_scores
from .prompt_lists import PromptLists

__all__ = ["Scored", "halves", "score", "scores_of"]

_BATCH, _TIMED = 32, 5
Scores = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """What one detector says of every prompt in one setting.

    Attributes:
        detector: Its name.
        steps: Denoising steps that it looked at.
        noises: Noises, whose scores were averaged.
        passes: Network passes that a prompt costs.
        seconds: Median time of one prompt alone.
        cross_fitted: Whether it learns, and judged each half of the prompts after learning from
            the other.
        scores: Larger for memorised prompts, in the order of the lists' `prompts`. # [prompt]
    """

    detector: str
    steps: int
    noises: int
    passes: int
    seconds: float
    cross_fitted: bool
    scores: Scores


def score(
    screener: Screener,
    lists: PromptLists,
    *,
    detectors: Sequence[str | Statistic] = ("magnitude",),
    steps: Sequence[int] = (1,),
    noises: Sequence[int] | None = None,
    progress: Progress = lambda *_: None,
) -> list[Scored]:
    """Measure every prompt once per detector and cut every setting out of that.

    Args:
        screener: The bundle on a backend.
        lists: The prompts.
        detectors: Statistics, or their names. One that looks at the first step alone has one step,
            and one that draws has all, whatever `steps` is; it has no row for one noise.
        steps: Numbers of denoising steps.
        noises: Numbers of noises, the first ones of the bank; all of it by default.
        progress: Told how many measurements of how many are done.

    Returns:
        One for each detector, number of steps and number of noises.

    Raises:
        InputError: no such detector, more steps or noises than the bundle has, one noise for a
            detector that draws, or too few prompts for one that learns.
        NumericsError: a feature is NaN or infinite.
    """
    lengths = sorted(set(steps))
    counts = sorted(set(noises or (screener.noises,)))
    for what, wanted, most in (
        ("steps", lengths, screener.steps),
        ("noises", counts, screener.noises),
    ):
        if not 1 <= wanted[0] <= wanted[-1] <= most:
            raise InputError(
                f"This bundle has {most} {what}, so --{what} {','.join(map(str, wanted))} cannot "
                f"be measured. Give 1 to {most}, or export the model with more."
            )
    chosen = [find_statistic(each) for each in dict.fromkeys(detectors)]
    plan = [
        (Detector(screener, detector=each), group)
        for each in chosen
        for group in _runs(each, lengths, screener.steps)
    ]
    for detector, group in plan:  # what cannot be fails before measuring for an hour
        detector.setting(steps=group[-1], noises=counts[-1])
        if detector.statistic.is_fitted:
            halves(lists, detector.statistic.name)
    total, done = len(plan) * len(lists.prompts), 0
    found = []
    for detector, group in plan:
        statistic, parts = detector.statistic, []
        for i in range(0, len(lists.prompts), _BATCH):
            batch = lists.prompts[i : i + _BATCH]
            parts.append(detector.measure(batch, steps=group[-1], noises=counts[-1]))
            done += len(batch)
            progress(done, total)
        features = np.concatenate(parts)
        usable = [m for m in counts if m > 1 or not statistic.draws]
        for k, m in itertools.product(group, usable):
            found.append(
                Scored(
                    detector=statistic.name,
                    steps=k,
                    noises=m,
                    passes=m * statistic.passes(k),
                    seconds=_seconds(detector, lists.prompts, k, m),
                    cross_fitted=statistic.is_fitted,
                    scores=scores_of(statistic, features[:, :m, :k], lists),
                )
            )
    names = [statistic.name for statistic in chosen]
    return sorted(found, key=lambda each: (names.index(each.detector), each.steps, each.noises))


def scores_of(statistic: Statistic, features: Features, lists: PromptLists) -> Scores:
    """Mean over noises of the scores; by cross-fitting where there is a fit.

    A detector that learns does so from one half of the prompts and judges the other, both ways.
    Its scores are in units of the benign scores of the half that it learned from, so that those of
    the two fits can be ranked together.

    Args:
        statistic: The detector.
        features: What it measured. # [prompt, noise, step, feature]
        lists: The prompts.

    Returns:
        # [prompt]
    """
    if not statistic.is_fitted:
        return _finite(statistic, checked_scores(statistic, features, None).mean(1))
    known, second = lists.memorized, halves(lists, statistic.name)
    scores = np.empty(len(features))
    for judged in (second, ~second):
        fit = learn(features[~judged & ~known], features[~judged & known])
        found = checked_scores(statistic, features, fit).mean(1)
        benign = found[~judged & ~known]
        scores[judged] = ((found - benign.mean()) / benign.std())[judged]
    return _finite(statistic, scores)


def _finite(statistic: Statistic, scores: NDArray[np.floating[Any]]) -> Scores:
    if not np.isfinite(scores).all():
        raise NumericsError(
            f"A score of {statistic.name!r} is NaN or infinite, or all benign prompts score the "
            "same: there is nothing to rank. Choose another detector, or run the bundle on another "
            "backend."
        )
    return np.asarray(scores, np.float64)


def halves(lists: PromptLists, detector: str) -> NDArray[np.bool_]:
    """Which prompts belong to the second half; near duplicates are in one half. # [prompt]

    Raises:
        InputError: a list has too few different prompts to be halved.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if min(lists.group_counts) > 1:
        parts = StratifiedGroupKFold(2, shuffle=True, random_state=0)
        _, judged = next(parts.split(lists.memorized, lists.memorized, lists.groups))
        second = np.isin(np.arange(len(lists.prompts)), judged)
        if all(half[~lists.memorized].sum() >= 2 for half in (second, ~second)):
            return second
    raise InputError(
        f"The detector {detector!r} learns from one half of the prompts and judges the other, "
        f"near duplicates together: {counted(lists.group_counts[0], 'group')} of memorised and "
        f"{lists.group_counts[1]} of other prompts are too few. Give more, or leave it out of "
        "--detector."
    )


def _runs(statistic: Statistic, lengths: list[int], whole: int) -> list[list[int]]:
    """Steps to measure together: the fewer are the beginning of the most.

    Except for one step where that has a graph of its own, which costs less.
    """
    if statistic.only_first:
        return [[1]]
    if statistic.draws:
        return [[whole]]
    if lengths[0] == 1 < lengths[-1] and statistic.passes(2) != 2 * statistic.passes(1):
        return [lengths[:1], lengths[1:]]
    return [lengths]


def _seconds(detector: Detector, prompts: Sequence[str], steps: int, noises: int) -> float:
    """Median time of a prompt alone."""
    times = []
    for prompt in prompts[-_TIMED:]:
        start = time.perf_counter()
        detector.measure([prompt], steps=steps, noises=noises)
        times.append(time.perf_counter() - start)
    return float(np.median(times))

"""The stage of an audit that screens: a score for every distinct prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..calibration import Setting
from ..detector import Detector
from .source import Source
from .stages import Stage

__all__ = ["Measured", "Score", "collect", "measuring"]

_BATCH = 32


class Score(msgspec.Struct, array_like=True, frozen=True):
    """What was measured of a prompt.

    Attributes:
        score: The detector's.
        truncated: Whether its end did not fit into what the model reads.
    """

    score: float
    truncated: bool


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of each distinct prompt.

    Attributes:
        scores: # [prompt]
        truncated: Whether its end did not fit into what the model reads. # [prompt]
    """

    scores: NDArray[np.float64]
    truncated: NDArray[np.bool_]


def measuring(
    source: Source, open_detector: Callable[[], AbstractContextManager[Detector]], setting: Setting
) -> Stage[str, Score]:
    """The stage.

    Args:
        source: The prompts.
        open_detector: Opens what measures; picklable if other processes are to.
        setting: How it measures; the job of the journal holds it.
    """
    return Stage(
        name="measure",
        identity=b"",
        unit="distinct prompt",
        count=source.measured,
        size=_BATCH,
        items=source.prompts,
        result=Score,
        open=partial(_open, open_detector, setting),
    )


def collect(batches: Iterator[tuple[int, list[Score]]], count: int) -> Measured:
    """The results of all batches, in the order of prompts."""
    measured = Measured(np.full(count, np.nan), np.zeros(count, bool))
    for number, found in batches:
        here = slice(number * _BATCH, number * _BATCH + len(found))
        measured.scores[here] = [each.score for each in found]
        measured.truncated[here] = [each.truncated for each in found]
    return measured


@contextmanager
def _open(
    open_detector: Callable[[], AbstractContextManager[Detector]], setting: Setting
) -> Iterator[Callable[[list[str]], list[Score]]]:
    with open_detector() as detector:
        yield partial(_measure, detector, setting)


def _measure(detector: Detector, setting: Setting, prompts: list[str]) -> list[Score]:
    found = detector.screen(prompts, steps=setting.steps, noises=setting.noises)
    return [Score(each.score, each.truncated) for each in found]

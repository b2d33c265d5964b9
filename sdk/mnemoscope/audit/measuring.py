"""The stage of an audit that screens: a score for every distinct prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import BundleError
from mnemoscope_runtime.manifest import ModelRecord
from mnemoscope_runtime.tokenizer import Tokenizer

from ..calibration import Calibration, CalibrationFile, Setting
from ..calibration.written import text_of
from ..detector import Detector
from .source import Source
from .stages import Stage, Workers

__all__ = ["Opens", "Way", "ask", "collect", "known_as", "measuring"]

_BATCH = 32
Opens = Callable[[], AbstractContextManager[Detector]]


@dataclass(frozen=True, eq=False)
class Way:
    """How prompts are measured.

    Attributes:
        setting: Of the detector.
        calibration: Of that setting.
        model: What the bundle was exported from.
        tokenizer: What the bundle reads prompts with.
    """

    setting: Setting
    calibration: Calibration
    model: ModelRecord
    tokenizer: Tokenizer


def known_as(calibration: Calibration) -> str:
    """sha256 of a calibration."""
    return hashlib.sha256(text_of(calibration)).hexdigest()


def ask(opens: Opens, steps: int, noises: int | None, workers: Workers) -> Way:
    """How workers will measure, by the account of one of them.

    So whoever sends the batches need not be able to measure: it may have no GPU.

    Args:
        opens: As of `measuring`.
        steps: As of `Detector.setting`.
        noises: Likewise.
        workers: Who is asked.

    Raises:
        MnemoscopeError: it cannot be opened, or has no calibration of that setting.
    """
    opened = partial(_open_to_ask, opens, steps, noises)
    stage = Stage("ask", b"", "question", 1, 1, lambda: iter([None]), Way, opened)
    [(_, [found])] = workers.map(stage, enumerate(stage.batches()))
    return found


def measuring(
    source: Source, opens: Opens, setting: Setting, calibration: str
) -> Stage[str, float]:
    """The stage.

    Args:
        source: The prompts.
        opens: Opens what measures; picklable if other processes are to.
        setting: How it has to measure; the job of the journal holds it.
        calibration: What its calibration has to be `known_as`.
    """
    return Stage(
        name="measure",
        identity=b"",
        unit="distinct prompt",
        count=source.measured,
        size=_BATCH,
        items=source.prompts,
        result=float,
        open=partial(_open, opens, setting, calibration),
        doing="screening prompts",
    )


def collect(batches: Iterator[tuple[int, list[float]]], count: int) -> NDArray[np.float64]:
    """The scores of all batches, in the order of prompts. # [prompt]"""
    scores = np.full(count, np.nan)
    for number, found in batches:
        scores[number * _BATCH : number * _BATCH + len(found)] = found
    return scores


@contextmanager
def _open_to_ask(
    opens: Opens, steps: int, noises: int | None
) -> Iterator[Callable[[list[None]], list[Way]]]:
    with opens() as detector:
        found = _way(detector, steps, noises)
        yield lambda _: [found]


@contextmanager
def _open(
    opens: Opens, setting: Setting, calibration: str
) -> Iterator[Callable[[list[str]], list[float]]]:
    with opens() as detector:
        here = _way(detector, setting.steps, setting.noises)
        known = known_as(here.calibration)
        if here.setting != setting or known != calibration:
            raise BundleError(
                f"What was opened here is {here.setting} with the calibration {known}; the audit "
                f"measures with {setting} and {calibration}. Give every node the same files."
            )
        yield partial(_measure, detector, setting)


def _way(detector: Detector, steps: int, noises: int | None) -> Way:
    setting = detector.setting(steps=steps, noises=noises)
    known = (detector.calibration or CalibrationFile(())).require(
        setting, detector.screener.bundle.path
    )
    screener = detector.screener
    return Way(setting, known, screener.bundle.manifest.model, screener.tokenizer)


def _measure(detector: Detector, setting: Setting, prompts: list[str]) -> list[float]:
    found = detector.screen(prompts, steps=setting.steps, noises=setting.noises)
    return [each.score for each in found]

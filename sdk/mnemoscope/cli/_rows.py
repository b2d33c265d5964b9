"""Screening what the rows of a file hold, whether or not they hold a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from mnemoscope_runtime import InputError, NumericsError

from ..detector import Detector
from ..prompts import Broken
from ..screening.detection import Detection

__all__ = ["screen_rows"]

_BATCH = 32


def screen_rows(
    detector: Detector, rows: Iterable[str | Broken], **options: Any
) -> Iterator[Detection | Broken]:
    """What was measured of each row, in order; one that is no prompt is passed on as it is.

    A prompt that is refused is an error of its own, unless the first ones all are.

    Args:
        detector: What measures.
        rows: Any number of them.
        options: As of `Detector.stream`.

    Raises:
        InputError: as `Detector.screen`.
        NumericsError: a magnitude is NaN or infinite.
    """
    remaining = iter(rows)
    done = 0
    while batch := list(itertools.islice(remaining, _BATCH)):
        prompts = [row for row in batch if isinstance(row, str)]
        found: list[Detection | Broken]
        try:
            found = list(detector.stream(prompts, **options))
        except InputError:
            found = [_alone(detector, prompt, options) for prompt in prompts]
            if not done and all(isinstance(each, Broken) for each in found):
                raise
        except NumericsError as error:
            if not done:
                raise
            where = f"(Counted from row {done}, where this batch begins.)"
            raise NumericsError(f"{error} {where}") from None
        measured = iter(found)
        for row in batch:
            yield row if isinstance(row, Broken) else next(measured)
        done += len(batch)


def _alone(detector: Detector, prompt: str, options: dict[str, Any]) -> Detection | Broken:
    try:
        return next(detector.stream([prompt], **options))
    except InputError as error:
        return Broken("too long to be read", str(error), prompt)

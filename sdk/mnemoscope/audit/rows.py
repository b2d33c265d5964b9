"""What the results and the report of an audit say of each prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..captioned import CaptionedSet
from ..screening.weighting import read_literally
from . import report, table
from .confirming import Confirmation
from .judging import Judged
from .source import Source

__all__ = ["entries_of", "rows_of", "with_pictures", "with_places"]

_SHOWN, _OF_EACH = 200, 5  # in the report: groups, and of each
_CALIBRATED = "It is one of the prompts of the calibration: its p-value is no evidence."


def rows_of(source: Source, scores: NDArray[np.float64], judged: Judged) -> Iterator[table.Row]:
    """A row of results for each of the file, in its order."""
    for row, (prompt, place) in enumerate(zip(source.rows(), source.place, strict=True)):
        if place < 0:
            yield prompt, *[None] * 6, source.reasons[source.reason[row]]
            continue
        yield (
            prompt,
            float(scores[place]),
            float(judged.p_values[place]),
            bool(judged.flagged[place]),
            int(judged.groups[place]) or None,
            bool(source.truncated[row]),
            _notes(source, row, prompt),
            None,
        )


def with_places(rows: Iterator[table.Row], captioned: CaptionedSet) -> Iterator[table.Row]:
    """The same with `PLACE_COLUMNS` behind them."""
    for number, (row, each) in enumerate(zip(rows, captioned.rows(), strict=True), 1):
        yield *row, number, *each.place


def with_pictures(
    rows: Iterator[table.Row], source: Source, confirmation: Confirmation
) -> Iterator[table.Row]:
    """The same with `PICTURE_COLUMNS` behind them."""
    drawn = {each.place: each for each in confirmation.captions}
    repeats = confirmation.repeats
    images = captions = np.zeros(len(source.place), np.int64)
    if repeats is not None:
        images, captions = repeats.picture_times, repeats.caption_times
    for number, (row, place) in enumerate(zip(rows, source.place.tolist(), strict=True)):
        why = source.picture_reasons[source.picture_reason[number]]
        why = why or confirmation.picture_errors.get(number, "")
        caption, likeness = drawn.get(place), confirmation.rows.get(number)
        times = int(images[number]) or None, int(captions[number]) or None
        if caption is None or likeness is None:
            yield *row, None, None, None, None, None, *times, why or None
            continue
        other = caption.other_row
        yield (
            *row,
            caption.finding and str(caption.finding),
            likeness.similarity,
            likeness.copies,
            None if other is None else other + 1,
            None if other is None else float(caption.other.max()),
            *times,
            None,
        )


def entries_of(
    source: Source, scores: NDArray[np.float64], judged: Judged
) -> Iterator[report.Entry]:
    """The worst groups, and the worst prompts of each."""
    times = np.bincount(source.place[source.place >= 0])
    members: dict[int, list[int]] = {}
    for place in judged.shown:
        members.setdefault(int(judged.groups[place]), []).append(place)
    for number, places in itertools.islice(members.items(), _SHOWN):
        kept = places[:_OF_EACH] if number else places
        for place in kept:
            last = place == kept[-1]
            yield report.Entry(
                group=number or None,
                prompt=judged.shown[place],
                score=float(scores[place]),
                p_value=float(judged.p_values[place]),
                times=int(times[place]),
                others=len(places) - len(kept) if last else 0,
            )


def _notes(source: Source, row: int, prompt: str) -> str | None:
    """What else to know of a row, in sentences; None if nothing."""
    literally = read_literally(prompt) if source.weighted[row] else None
    calibrated = _CALIBRATED if source.calibrated[row] else None
    return " ".join(filter(None, (literally, calibrated))) or None

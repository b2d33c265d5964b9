"""What a report shows of a set of captioned pictures: pairs, repetitions, and a summary.

A page holds its pictures itself, so that their number and bytes are bounded, whatever the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..captioned import Broken, PictureReader
from ..duplicates import Repeats
from .confirming import Confirmation, Finding
from .confirming.confirmation import DrawnCaption
from .confirming.drawing import small
from .source import Source

__all__ = ["Explained", "Gallery", "Pair", "Repeated", "Words", "gallery"]

_PAIRS, _REPEATED, _EXPLAINED = 40, 12, 12
_BYTES = 6 * 2**20  # of the pictures of a page
_ROWS = 8  # of a repeated picture that are named
_ORDER = (Finding.confirmed, Finding.near_miss, Finding.not_confirmed, None)


@dataclass(frozen=True)
class Words:
    """A caption with its words marked.

    Attributes:
        pieces: The caption in pieces, each with a colour of CSS, or nothing.
        edit: A changed caption that the detector does not flag; None if none was found.
    """

    pieces: Sequence[tuple[str, str]]
    edit: str | None = None


Explained = Callable[[str], Words]
Item = TypeVar("Item")
_Shown = dict[int, tuple[str, bytes | None]]  # of rows: what the set calls them, and WebP


@dataclass(frozen=True)
class Pair:
    """A caption, its picture in the set, and what the model draws for it.

    Attributes:
        words: The caption.
        finding: What its drawings say, in words.
        flagged: Whether the audit flags it.
        place: Which of the distinct captions it is.
        row: Of its picture, from 1.
        where: The same as the set names it.
        training: The picture, as WebP; None if it can no longer be read.
        other: Another picture of the set that a drawing is more like, as WebP; None if none is.
        drawn: The drawings, as WebP.
        similarity: The highest cosine of a drawing with the picture.
        times: How many rows have the picture, and how many the caption; None if nobody knows.
    """

    words: Words
    finding: str
    flagged: bool
    place: int
    row: int
    where: str
    training: bytes | None
    other: bytes | None
    drawn: Sequence[bytes]
    similarity: float
    times: tuple[int, int] | None


@dataclass(frozen=True)
class Repeated:
    """A picture that a set has more than once.

    Attributes:
        picture: The one that is kept, as WebP; None if it can no longer be read.
        times: How many rows have it.
        rows: The first of them, from 1.
    """

    picture: bytes | None
    times: int
    rows: Sequence[int]


@dataclass(frozen=True)
class Gallery:
    """What a report shows.

    Attributes:
        pairs: Confirmed ones first, of each kind those most alike.
        pairs_left: How many captions were drawn and are not shown.
        repeated: Pictures that the set has more than once, the most frequent first.
        repeated_left: How many of those are not shown.
        marked: Whether captions have their words marked.
    """

    pairs: Sequence[Pair]
    pairs_left: int
    repeated: Sequence[Repeated]
    repeated_left: int
    marked: bool = True


def gallery(
    confirmation: Confirmation,
    source: Source,
    explained: Explained | None = None,
    *,
    at_most: int = _BYTES,
) -> Gallery:
    """Choose what is shown, and read its pictures.

    Args:
        confirmation: What came of drawing captions.
        source: The set.
        explained: Marks the words of a caption; asked for a few only.
        at_most: Bytes of pictures, of pairs and of repetitions each half.

    Raises:
        InputError: the set cannot be read.
    """
    drawn = sorted(
        confirmation.captions, key=lambda each: (_ORDER.index(each.finding), -each.own.max())
    )
    often = _most_repeated(confirmation.repeats)
    rows = {each.own_row for each in drawn[:_PAIRS]} | {row for row, _ in often[:_REPEATED]}
    rows |= {row for each in drawn[:_PAIRS] if (row := _other(each)) is not None}
    pictures = _pictures(source, rows)
    pairs: list[Pair] = []
    repeated: list[Repeated] = []
    for each in _within(drawn[:_PAIRS], lambda each: _weight(each, pictures), at_most // 2):
        ask = explained if len(pairs) < _EXPLAINED else None
        words = Words([(each.prompt, "")]) if ask is None else ask(each.prompt)
        pairs.append(_pair(each, words, pictures, confirmation.repeats))
    for row, times in _within(
        often[:_REPEATED], lambda each: len(pictures[each[0]][1] or b""), at_most // 2
    ):
        assert confirmation.repeats is not None
        alike = np.flatnonzero(confirmation.repeats.picture == row)[:_ROWS] + 1
        repeated.append(Repeated(pictures[row][1], times, alike.tolist()))
    left = len(drawn) - len(pairs), len(often) - len(repeated)
    return Gallery(pairs, left[0], repeated, left[1], marked=explained is not None)


def _most_repeated(repeats: Repeats | None) -> list[tuple[int, int]]:
    """Rows that stand for others, and how many have their picture; the most frequent first."""
    if repeats is None:
        return []
    kept = np.unique(repeats.picture[repeats.dropped])
    times = repeats.picture_times[kept]
    order = np.argsort(-times, kind="stable")
    return list(zip(kept[order].tolist(), times[order].tolist(), strict=True))


def _other(each: DrawnCaption) -> int | None:
    """The row of another picture that a near miss is more like."""
    near = each.finding is Finding.near_miss and each.other.max() > each.own.max()
    return each.other_row if near else None


def _pictures(source: Source, rows: set[int]) -> _Shown:
    """What the set calls rows, and their pictures as WebP."""
    assert source.captioned is not None
    found: _Shown = {}
    with PictureReader() as reader:
        for number, row in enumerate(source.captioned.rows()):
            if number in rows:
                spot = row.picture
                image = spot if isinstance(spot, Broken) else reader.read(spot)
                found[number] = row.called, None if isinstance(image, Broken) else small(image)
    return found


def _weight(each: DrawnCaption, pictures: _Shown) -> int:
    other = _other(each)
    own = len(pictures[each.own_row][1] or b"") + sum(map(len, each.shown))
    return own + (0 if other is None else len(pictures[other][1] or b""))


def _within(items: Iterable[Item], weight: Callable[[Item], int], most: int) -> Iterator[Item]:
    """The first items that weigh no more than that together."""
    for each in items:
        most -= weight(each)
        if most < 0:
            return
        yield each


def _pair(
    each: DrawnCaption,
    words: Words,
    pictures: _Shown,
    repeats: Repeats | None,
) -> Pair:
    where, training = pictures[each.own_row]
    other = _other(each)
    times = None
    if repeats is not None:
        row = each.own_row
        times = int(repeats.picture_times[row]), int(repeats.caption_times[row])
    return Pair(
        words=words,
        finding="no finding" if each.finding is None else str(each.finding),
        flagged=each.flagged,
        place=each.place,
        row=each.own_row + 1,
        where=where,
        training=training,
        other=None if other is None else pictures[other][1],
        drawn=each.shown,
        similarity=float(each.own.max()),
        times=times,
    )

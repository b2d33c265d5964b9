"""How often what a captioned set holds occurs in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

from ..prompts.printable import counted
from .captions import CAPTIONS_ALIKE, kept_captions
from .grouping import EXACT, kept_rows
from .neighbours import Vectors

__all__ = ["Repeats", "find_repeats"]

Rows = NDArray[np.int64]
_BLOCK = 2**14  # vectors at a time


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which rows of a set have the same picture, nearly, and which the same caption.

    Attributes:
        pictures_alike: The cosine above which two pictures are one.
        captions_alike: Likewise of captions (`kept_captions`).
        picture: The row whose picture stands for each row's: its own, or one before it; -1 where
            no picture could be read. # [row]
        similarity: The cosine with that picture; 1 for its own, NaN where there is none. # [row]
        caption: As `picture`, of captions. # [row]
    """

    pictures_alike: float
    captions_alike: float
    picture: Rows
    similarity: NDArray[np.float32]
    caption: Rows

    @cached_property
    def picture_times(self) -> Rows:
        """How many rows have each row's picture; 0 where there is none. # [row]"""
        return _times(self.picture)

    @cached_property
    def caption_times(self) -> Rows:
        """How many rows have each row's caption; 0 where there is none. # [row]"""
        return _times(self.caption)

    @cached_property
    def dropped(self) -> NDArray[np.bool_]:
        """Which rows repeat the picture of a row before them. # [row]"""
        return np.asarray((self.picture >= 0) & (self.picture != np.arange(len(self.picture))))

    @property
    def repeated(self) -> int:
        """How many pictures there are more than once."""
        return len(np.unique(self.picture[self.dropped]))

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        count, dropped = int((self.picture >= 0).sum()), int(self.dropped.sum())
        repeat = "repeats one before it" if dropped == 1 else "repeat one before them"
        return (
            f"{dropped:,} of {counted(count, 'picture')} {repeat}, {self.repeated:,} different "
            f"{'one' if self.repeated == 1 else 'ones'} (a cosine above {self.pictures_alike:.3g})"
        )


def find_repeats(
    vectors: Vectors,
    rows: Rows,
    captions: Iterable[str | None],
    *,
    pictures_alike: float | None,
    captions_alike: float = CAPTIONS_ALIKE,
    exact: int = EXACT,
) -> Repeats:
    """Find what a set holds more than once.

    Args:
        vectors: Unit vectors of the pictures that could be read. # [P, D]
        rows: The row of each, in ascending order. # [P]
        captions: Of every row; None where there is none.
        pictures_alike: Usually the descriptor's `duplicate_above`.
        captions_alike: See `kept_captions`.
        exact: See `kept_rows`.

    Raises:
        InputError: nobody knows when two pictures are alike, or numbers do not fit.
        NumericsError: a vector is NaN, or not of length 1.
        BackendUnavailable: faiss or scikit-learn is not installed.
    """
    if pictures_alike is None:
        raise InputError(
            "What cosine makes two pictures of a set the same is not known for this descriptor. "
            "Compare them by SSCD (--descriptor sscd), or leave duplicates out."
        )
    usable = bytearray()

    def texts() -> Iterator[str]:
        for each in captions:
            usable.append(each is not None)
            if each is not None:
                yield each

    told = kept_captions(texts(), captions_alike, exact=exact)
    some = np.flatnonzero(np.frombuffer(bytes(usable), np.bool_))
    caption = np.full(len(usable), -1)
    caption[some] = some[told]
    kept = kept_rows(vectors, pictures_alike, exact=exact)
    picture = np.full(len(usable), -1)
    picture[rows] = rows[kept]
    similarity = np.full(len(usable), np.nan, np.float32)
    similarity[rows] = 1
    dropped = np.flatnonzero(kept != np.arange(len(kept)))
    for first in range(0, len(dropped), _BLOCK):
        some = dropped[first : first + _BLOCK]
        own, other = (vectors[each].astype(np.float32) for each in (some, kept[some]))
        similarity[rows[some]] = np.einsum("nd,nd->n", own, other).clip(-1, 1)
    return Repeats(pictures_alike, captions_alike, picture, similarity, caption)


def _times(kept: Rows) -> Rows:
    counts = np.bincount(kept[kept >= 0], minlength=len(kept))
    return np.where(kept >= 0, counts[kept], 0)

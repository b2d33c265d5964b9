"""Describe the pictures of a set, draw some captions, and say what that confirms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.options import check_options

from ...captioned import Broken, CaptionedSet, Spot
from ...duplicates import Repeats, find_repeats
from ...duplicates.neighbours import import_faiss
from ...prompts.printable import counted
from ..journal import Journal
from ..source import Source
from ..stages import Begins, Progress, Stage, Workers, run
from . import describing, drawing
from .artist import Artist, Halves, Opens
from .choosing import AT_MOST, UNFLAGGED, choose
from .comparing import compare, unrelated
from .confirmation import Confirmation, DrawnCaption, Likeness
from .findings import Cosines, judge, usual

__all__ = ["Confirming", "confirm"]

_MOST_SEEDS = 64
_Batches = Iterator[tuple[int, list[describing.Described]]]


@dataclass(frozen=True)
class Confirming:
    """How findings are confirmed.

    Attributes:
        artist: What draws and compares.
        opens: Opens the same in another process; None if workers are in this one.
        seeds: From how many seeds a caption is drawn, from 0 on: 1 to 64.
        at_most: How many flagged captions are drawn at most.
        unflagged: How many of those that are not flagged.
    """

    artist: Artist
    opens: Opens | None = None
    seeds: int = 4
    at_most: int = AT_MOST
    unflagged: int = UNFLAGGED

    def __post_init__(self) -> None:
        check_options(
            "a whole number", seeds=self.seeds, at_most=self.at_most, unflagged=self.unflagged
        )
        if not 1 <= self.seeds <= _MOST_SEEDS or min(self.at_most, self.unflagged) < 0:
            raise InputError(
                f"Captions are drawn from 1 to {_MOST_SEEDS} seeds, and no fewer than 0 of them: "
                f"not {self.at_most} and {counted(self.unflagged, 'caption')} from {self.seeds}."
            )
        import_faiss()


def confirm(
    wanted: Confirming,
    source: Source,
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    journal: Journal,
    workers: Workers,
    *,
    begins: Begins = lambda *_: None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Confirmation:
    """Draw captions and compare them with the pictures of their set.

    Args:
        wanted: How.
        source: A captioned set that was scanned.
        scores: Of each distinct caption. # [N]
        flagged: Likewise. # [N]
        journal: Where it is kept what pictures are like, and what was drawn.
        workers: Who does it.
        begins: Told what each stage does and how many items are left, at its beginning.
        progress: Told how many of how many are done, of each stage.
        tell: Told what the user should know.

    Raises:
        InputError: the set holds no picture that can be read, or the journal cannot be written.
        NumericsError: a picture or a vector is NaN or infinite.
    """
    artist, opens = wanted.artist, wanted.opens or (lambda: wanted.artist)
    identity = artist.identity()
    go = partial(run, journal=journal, workers=workers, begins=begins, progress=progress)
    go = partial(go, tell=tell)
    known = _describe(source, opens, identity, go, tell)
    drawable = np.zeros(len(scores), np.bool_)
    drawable[known.places[known.places >= 0]] = True
    numbers = {"at_most": wanted.at_most, "unflagged": wanted.unflagged}
    chosen = choose(scores, flagged, drawable, source.sha256, **numbers)
    prompts = _texts(source, chosen.places)
    stage = drawing.drawing(prompts, range(wanted.seeds), opens, identity)
    drawn, shown = drawing.collect(go(stage), len(prompts), wanted.seeds)

    owned = _owned(known.places, chosen.places)
    compared = compare(drawn, known.vectors, owned)
    first = len(chosen.worst) + len(chosen.flagged)  # of those that are not flagged
    level = usual(unrelated(drawn[first:], known.vectors, owned[first:]))
    above, same = artist.descriptor.copied_above, artist.descriptor.duplicate_above
    own = np.stack([each.max(0) for each in compared.own]) if prompts else compared.other
    findings = judge(own, compared.other, above, level, same)
    captions = [
        DrawnCaption(
            place=int(chosen.places[n]),
            prompt=prompt,
            flagged=n < first,
            finding=findings[n],
            own=own[n],
            own_row=int(known.rows[owned[n][compared.own[n].max(1).argmax()]]),
            other=compared.other[n],
            other_row=_row(compared.nearest[n, compared.other[n].argmax()], known.rows),
            shown=shown[n],
        )
        for n, prompt in enumerate(prompts)
    ]
    return Confirmation(
        descriptor=artist.descriptor.name,
        copied_above=above,
        usual_up_to=level,
        seeds=wanted.seeds,
        steps=artist.steps,
        guidance=artist.guidance,
        pictures=len(known.rows),
        errors=dict(known.errors),
        chosen=chosen,
        captions=captions,
        rows=dict(_likenesses(compared.own, owned, known.rows, above)),
        picture_errors=known.by_row,
        repeats=_repeats(source, known, same),
    )


@dataclass(frozen=True, eq=False)
class _Described:
    vectors: Halves  # [P, 2, D]
    rows: NDArray[np.int64]  # which row each is of
    places: NDArray[np.int64]  # and which caption; -1 if that cannot be screened
    errors: Counter[str]
    by_row: dict[int, str]


def _describe(
    source: Source,
    opens: Opens,
    identity: str,
    go: Callable[[Stage[Spot, describing.Described]], _Batches],
    tell: Callable[[str], None],
) -> _Described:
    assert source.captioned is not None
    where = np.flatnonzero(source.pictured)
    spots = partial(spots_of, source.captioned)
    stage = describing.describing(spots, len(where), opens, identity)
    found = describing.collect(go(stage), len(where))
    errors = Counter(source.picture_errors) + Counter(filter(None, found.errors))
    for reason, many in errors.items():
        tell(f"{counted(many, 'picture')} cannot be compared with ({reason}).")
    rows = where[found.place >= 0]
    if not len(rows):
        raise InputError(
            f"{source.path} holds no picture that can be read, so that nothing can be confirmed. "
            "Check --images, or leave confirming out (--confirm 0)."
        )
    by_row = {int(where[at]): why for at, why in enumerate(found.errors) if why}
    return _Described(found.vectors, rows, source.place[rows], errors, by_row)


def _row(vector: int, rows: NDArray[np.int64]) -> int | None:
    return None if vector < 0 else int(rows[vector])


def _likenesses(
    own: Sequence[Cosines],
    owned: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64],
    above: float | None,
) -> Iterator[tuple[int, Likeness]]:
    """What came of each row with a picture whose caption was drawn."""
    for cosines, vectors in zip(own, owned, strict=True):
        for each, vector in zip(cosines, vectors.tolist(), strict=True):
            copies = None if above is None else int((each > above).sum())
            yield int(rows[vector]), Likeness(float(each.max()), copies)


def spots_of(captioned: CaptionedSet) -> Iterator[Spot]:
    """Where the pictures of a set lie, row by row, of those that have one."""
    for row in captioned.rows():
        if not isinstance(row.picture, Broken):
            yield row.picture


def _repeats(source: Source, known: _Described, alike: float | None) -> Repeats | None:
    if alike is None:
        return None
    captions = (
        text if place >= 0 else None
        for text, place in zip(source.rows(), source.place.tolist(), strict=True)
    )
    return find_repeats(known.vectors[:, 0], known.rows, captions, pictures_alike=alike)


def _texts(source: Source, places: NDArray[np.int64]) -> list[str]:
    """The captions at these places, in that order."""
    found = dict.fromkeys(places.tolist(), "")
    for place, prompt in enumerate(source.prompts()):
        if place in found:
            found[place] = prompt
    return list(found.values())


def _owned(of: NDArray[np.int64], places: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Which vectors are each caption's own, by the caption of each vector."""
    order = np.argsort(of, kind="stable")
    ends = np.searchsorted(of[order], [places, places + 1])
    return [order[low:high] for low, high in ends.T]

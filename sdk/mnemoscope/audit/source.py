"""The prompts of an audit, read anew in each pass so that none has to stay in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT
from mnemoscope_runtime.wording import counted

from ..captioned import CaptionedSet, fingerprint
from ..prompts import Broken, read_rows
from ..prompts.files import no_longer

__all__ = ["Source", "require_file"]

_EMPTY = "empty: there is nothing to compare with the empty prompt"


@dataclass(frozen=True, eq=False)
class Source:
    """A file of prompts, and which of them to measure.

    Attributes:
        path: The file.
        column: As in `read_rows`.
        quotes: As in `read_rows`.
        sha256: Of the file.
        chosen: Whether a row is measured: it can be, and the prompt stands there first. # [row]
        place: Which of the measured prompts a row holds; -1 if it cannot be screened. # [row]
        reason: Why it cannot be, as an index of `reasons`; 0 if it can. # [row]
        reasons: All that there are.
        captioned: The set that the rows are of, if they have pictures.
        picture_reason: Why a row has no picture, as an index of `picture_reasons`; 0 if it has one,
            or nobody asked. # [row]
        picture_reasons: All that there are.
    """

    path: Path
    column: str | None
    quotes: bool
    sha256: str
    chosen: NDArray[np.bool_]
    place: NDArray[np.int64]
    reason: NDArray[np.uint8]
    reasons: tuple[str, ...]
    captioned: CaptionedSet | None
    picture_reason: NDArray[np.uint8]
    picture_reasons: tuple[str, ...]

    @classmethod
    def scan(
        cls,
        path: str | Path,
        column: str | None = None,
        *,
        quotes: bool = True,
        captioned: CaptionedSet | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Source:
        """Read a file once: what is wrong with it comes out now and not after hours.

        Args:
            path: The file, or the set.
            column: As in `read_rows`.
            quotes: As in `read_rows`.
            captioned: The set, if rows have pictures.
            tell: Told what was read.

        Raises:
            InputError: it cannot be read, or holds no prompt to screen.
        """
        path = Path(path)
        sha256 = _hash(path) if captioned is None else fingerprint(captioned)
        digests, codes, lacking = bytearray(), bytearray(), bytearray()
        reasons, lacks = {"": 0}, {"": 0}
        for row, without in _rows(path, column, quotes, captioned, tell):
            # what is broken is no repetition of anything
            text = row.encode() if isinstance(row, str) else b"\xff%d" % len(codes)
            digests += hashlib.blake2b(text, digest_size=16).digest()
            codes.append(reasons.setdefault(_reason(row), len(reasons)))
            lacking.append(lacks.setdefault(without, len(lacks)))
        reason, names = np.frombuffer(bytes(codes), np.uint8), tuple(reasons)
        if not len(reason):
            raise InputError(f"{path} holds no prompts. Give a file with some.")
        if reason.all():
            raise InputError(
                f"None of the {counted(len(reason), 'prompt')} of {path} can be screened; the "
                f"first is {names[reason[0]]}. Give a file with some."
            )
        first = _first(np.frombuffer(bytes(digests), np.uint64).reshape(-1, 2))
        chosen = (first == np.arange(len(first))) & (reason == 0)
        place = np.where(reason == 0, (np.cumsum(chosen) - 1)[first], -1)
        return cls(
            path=path,
            column=column,
            quotes=quotes,
            sha256=sha256,
            chosen=chosen,
            place=place,
            reason=reason,
            reasons=names,
            captioned=captioned,
            picture_reason=np.frombuffer(bytes(lacking), np.uint8),
            picture_reasons=tuple(lacks),
        )

    @property
    def measured(self) -> int:
        """How many prompts to measure."""
        return int(self.chosen.sum())

    @property
    def errors(self) -> dict[str, int]:
        """How many prompts cannot be screened, by reason."""
        return _counts(self.reason, self.reasons)

    @property
    def pictured(self) -> NDArray[np.bool_]:
        """Which rows have a picture. # [row]"""
        return np.asarray(self.picture_reason == 0)

    @property
    def picture_errors(self) -> dict[str, int]:
        """How many rows have no picture, by reason."""
        return _counts(self.picture_reason, self.picture_reasons)

    def rows(self) -> Iterator[str]:
        """All prompts, in order; of what is broken, what can be shown."""
        for row, _ in _rows(self.path, self.column, self.quotes, self.captioned):
            yield row.text if isinstance(row, Broken) else row

    def prompts(self) -> Iterator[str]:
        """Those to measure, each once, in the order of their first appearance."""
        return itertools.compress(self.rows(), self.chosen)

    def check(self) -> None:
        """Raise InputError if the file is no longer the one that was scanned."""
        now = _hash(self.path) if self.captioned is None else fingerprint(self.captioned)
        if now != self.sha256:
            raise InputError(
                f"{self.path} was changed while it was audited, so that nobody knows which prompts "
                "were measured. Audit it again."
            )


def _rows(
    path: Path,
    column: str | None,
    quotes: bool,
    captioned: CaptionedSet | None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str | Broken, str]]:
    """Each row's prompt, and why it has no picture."""
    if captioned is None:
        for row in read_rows(path, column=column, quotes=quotes, longest=LONGEST_PROMPT, tell=tell):
            yield row, ""
        return
    for each in captioned.rows(tell):
        without = each.picture.reason if isinstance(each.picture, Broken) else ""
        yield no_longer(each.caption, LONGEST_PROMPT), without


def _counts(codes: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: n for name, n in zip(names, counts, strict=True) if name and n}


def _reason(row: str | Broken) -> str:
    if isinstance(row, Broken):
        return row.reason
    return "" if row.strip() else _EMPTY


def _first(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first row with the same digest as each row. # [row, 2] -> [row]"""
    order = np.lexsort(digests.T)  # stable
    differs = (np.diff(digests[order], axis=0) != 0).any(1)
    new = np.concatenate([[True], differs])
    first = np.empty(len(order), np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def require_file(path: Path) -> None:
    """Raise InputError of what can be read once only, like a pipe."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file. An audit reads one several times: save the prompts.")


def _hash(path: Path) -> str:
    require_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None

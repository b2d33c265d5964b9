"""The prompts of an audit, read anew in each pass so that none has to stay in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT, Tokenizer
from mnemoscope_runtime.wording import counted

from ..calibration import Calibration, digest, name_of
from ..captioned import CaptionedSet, fingerprint
from ..prompts import Broken, read_rows
from ..prompts.files import no_longer
from ..screening.weighting import weighting

__all__ = ["Source", "require_file"]

_EMPTY = "empty: there is nothing to compare with the empty prompt"
_REFUSED = "refused by the tokenizer: `screen` says why"
_BATCH = 1024  # rows that are tokenized at a time


@dataclass(frozen=True, eq=False)
class Source:
    """A file of prompts, and which of them to measure.

    Attributes:
        path: The file.
        column: As in `read_rows`.
        quotes: As in `read_rows`.
        sha256: Of the file.
        chosen: Whether a row is measured: it can be, and the prompt stands there first. # [row]
        place: Which of the measured prompts a row holds, those that are the same to the model being
            one; -1 if it cannot be screened. # [row]
        truncated: Whether the end of a row's prompt does not fit into what the model reads. # [row]
        weighted: Whether it holds signs that some pipelines make weights of, or the like. # [row]
        calibrated: Whether the calibration was made with it. # [row]
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
    truncated: NDArray[np.bool_]
    weighted: NDArray[np.bool_]
    calibrated: NDArray[np.bool_]
    reason: NDArray[np.uint8]
    reasons: tuple[str, ...]
    captioned: CaptionedSet | None
    picture_reason: NDArray[np.uint8]
    picture_reasons: tuple[str, ...]

    @classmethod
    def scan(
        cls,
        path: str | Path,
        tokenizer: Tokenizer,
        column: str | None = None,
        *,
        calibration: Calibration | None = None,
        quotes: bool = True,
        captioned: CaptionedSet | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Source:
        """Read a file once: what is wrong with it comes out now and not after hours.

        Args:
            path: The file, or the set.
            tokenizer: Of the bundle: what it makes the same of is one prompt.
            column: As in `read_rows`.
            quotes: As in `read_rows`.
            calibration: What prompts will be compared with, to find those among them.
            captioned: The set, if rows have pictures.
            tell: Told what was read.

        Raises:
            InputError: it cannot be read, or holds no prompt to screen.
        """
        path = Path(path)
        sha256 = _hash(path) if captioned is None else fingerprint(captioned)
        seen = _Seen(tokenizer, calibration)
        lacking, lacks = bytearray(), {"": 0}
        for row, without in _rows(path, column, quotes, captioned, tell):
            seen.add(row)
            lacking.append(lacks.setdefault(without, len(lacks)))
        reason, names = seen.reason, tuple(seen.reasons)
        if not len(reason):
            raise InputError(f"{path} holds no prompts. Give a file with some.")
        if reason.all():
            raise InputError(
                f"None of the {counted(len(reason), 'prompt')} of {path} can be screened; the "
                f"first is {names[reason[0]]}. Give a file with some."
            )
        first = _first(seen.read)
        chosen = (first == np.arange(len(first))) & (reason == 0)
        place = np.where(reason == 0, (np.cumsum(chosen) - 1)[first], -1)
        truncated, weighted, calibrated = seen.marks.T
        return cls(
            path=path,
            column=column,
            quotes=quotes,
            sha256=sha256,
            chosen=chosen,
            place=place,
            truncated=truncated,
            weighted=weighted,
            calibrated=calibrated,
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
    def repeated(self) -> int:
        """How many rows hold what is to the model an earlier one's prompt."""
        return int((self.place >= 0).sum()) - self.measured

    def of_distinct(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the measured prompts stand in some of these rows. # [row] -> [distinct]"""
        found = np.zeros(self.measured, np.bool_)
        found[self.place[rows & (self.place >= 0)]] = True
        return found

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


class _Seen:
    """What there is to know of rows, which come one at a time and are tokenized many at a time."""

    def __init__(self, tokenizer: Tokenizer, calibration: Calibration | None) -> None:
        self.reasons = {"": 0}
        self._tokenizer = tokenizer
        self._empty = tokenizer.digests([""])[0]
        self._by_text = calibration is not None and calibration.named_by == "text"
        self._known: Collection[str] = frozenset(() if calibration is None else calibration.prompts)
        self._waiting: list[str | Broken] = []
        self._count = 0
        self._digests, self._codes, self._marks = bytearray(), bytearray(), bytearray()

    def add(self, row: str | Broken) -> None:
        self._waiting.append(row)
        if len(self._waiting) == _BATCH:
            self._tell_apart()

    @property
    def reason(self) -> NDArray[np.uint8]:
        """Why each cannot be screened, as an index of `reasons`. # [row]"""
        self._tell_apart()
        return np.frombuffer(bytes(self._codes), np.uint8)

    @property
    def read(self) -> NDArray[np.uint64]:
        """Digests of what is read of each. # [row, 2]"""
        return np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)

    @property
    def marks(self) -> NDArray[np.bool_]:
        """Whether each is truncated, weighted, calibrated. # [row, 3]"""
        return np.frombuffer(bytes(self._marks), np.bool_).reshape(-1, 3)

    def _tell_apart(self) -> None:
        told = iter(self._told([row for row in self._waiting if isinstance(row, str)]))
        for row in self._waiting:
            reason, marks = row.reason if isinstance(row, Broken) else "", (False, False, False)
            read = hashlib.sha256(b"%d" % self._count).digest()  # of what is broken: no repetition
            if isinstance(row, str):
                found = next(told)
                if found is None:
                    reason = _REFUSED
                elif not row.strip() or found[0] == self._empty:
                    reason = _EMPTY
                else:
                    read, cut = found
                    name = digest(row) if self._by_text else name_of(read)
                    marks = cut, bool(weighting(row)), name in self._known
            self._digests += read[:16]
            self._codes.append(self.reasons.setdefault(reason, len(self.reasons)))
            self._marks += bytes(marks)
            self._count += 1
        self._waiting.clear()

    def _told(self, texts: Sequence[str]) -> list[tuple[bytes, bool] | None]:
        """What tells each apart, and whether it is cut; None of what the tokenizer refuses."""
        if not texts:
            return []
        try:
            tokens = self._tokenizer.encode(texts)
        except InputError:
            return (
                [None] if len(texts) == 1 else [found for t in texts for found in self._told([t])]
            )
        return [*zip(tokens.digests(), tokens.truncated, strict=True)]


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

"""What was measured so far, in a file that outlives the process.

A header says what was measured and how; then comes one line for each batch, so that what a kill
tore off is a whole batch, and going on measures the same batches as never having stopped: an
engine's rounding may depend on them. With each batch stands a digest of it and of the header, since
verdicts come of what is read again.

A file of lines and no SQLite: it is written at its end alone, by one process, and read once, so
that a torn last line is all that can go wrong, and it stays one file beside OUTPUT. It grows in
place, where all other files are staged (`mnemoscope_runtime.staging`), and is held meanwhile.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import InputError
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.staging import hold

from ..calibration import Setting

__all__ = ["Job", "Journal", "Measured"]


@dataclass(frozen=True)
class Job:
    """What has to be the same for measurements to be taken over.

    Attributes:
        version: Of Mnemoscope.
        setting: How prompts are measured.
        calibration: sha256 of the calibration of that setting.
        input: sha256 of the file of prompts.
        column: Of the file that holds the prompts, if it was named.
        quotes: Whether quotes hold fields of the file together.
    """

    version: str
    setting: Setting
    calibration: str
    input: str
    column: str | None
    quotes: bool = True
    kind: str = "mnemoscope-audit"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of each distinct prompt.

    Attributes:
        scores: # [prompt]
        truncated: Whether its end did not fit into what the model reads. # [prompt]
    """

    scores: NDArray[np.float64]
    truncated: NDArray[np.bool_]


class _Batch(msgspec.Struct):
    start: int
    scores: list[float]
    truncated: list[bool]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    batch: msgspec.Raw


class Journal(Closing):
    """An open journal. A context manager, which closes the file and lets it lie."""

    def __init__(self, path: Path, file: IO[bytes], header: bytes, measured: Measured) -> None:
        self.path = path
        self._file = file
        self._header = header
        self.measured = measured
        self.done = 0  # how many prompts

    @classmethod
    def open(cls, path: Path, job: Job, count: int, *, restart: bool = False) -> Journal:
        """Go on with a journal, or begin one.

        Args:
            path: The file.
            job: What is to be measured.
            count: How many prompts.
            restart: Whether to begin one whatever lies there.

        Raises:
            InputError: the journal is another job's or damaged, cannot be written, or is being
                written by another process.
        """
        header = msgspec.json.encode(job) + b"\n"
        measured = Measured(np.full(count, np.nan), np.zeros(count, bool))
        try:
            path.touch()
            file = path.open("r+b")
        except OSError as error:
            raise _unwritable(path, error) from None
        journal = cls(path, file, header, measured)
        try:
            if not hold(file.fileno(), path):
                raise InputError(
                    f"{path} is being written by another audit. Wait for its end, or choose "
                    "another --output."
                )
            if restart:
                file.truncate()
            found = file.readline(2**16)
            if header.startswith(found) and found != header:  # new, or torn in its first line
                found = b""
                file.seek(0)
                journal._write(header)
            elif found != header:
                raise InputError(f"{path} {_difference(found, job)} {_AGAIN}")
            else:
                journal._restore()
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, scores: list[float], truncated: list[bool]) -> None:
        """Add a batch.

        Raises:
            InputError: the file cannot be written; what was there before is kept.
        """
        text = msgspec.json.encode(_Batch(self.done, scores, truncated))
        self._write(msgspec.json.encode(_Line(self._digest(text), msgspec.Raw(text))) + b"\n")
        self._take(scores, truncated)

    def remove(self) -> None:
        """Delete the file: it is no longer needed."""
        if sys.platform == "win32":  # which deletes nothing that is open
            self.close()
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:  # of what was still to be flushed
            raise _unwritable(self.path, error) from None

    def _take(self, scores: list[float], truncated: list[bool]) -> None:
        end = self.done + len(scores)
        self.measured.scores[self.done : end] = scores
        self.measured.truncated[self.done : end] = truncated
        self.done = end

    def _restore(self) -> None:
        lines, batches = msgspec.json.Decoder(_Line), msgspec.json.Decoder(_Batch)
        kept = self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                break  # torn by a kill
            try:
                held = lines.decode(line)
                if self._digest(held.batch) != held.sha256:
                    raise ValueError("a batch is not what was written")
                batch = batches.decode(held.batch)
                fits = len(batch.scores) <= len(self.measured.scores) - self.done
                if batch.start != self.done or not fits:
                    raise ValueError("a batch is missing or too many")
                if len(batch.scores) != len(batch.truncated):
                    raise ValueError("a batch lacks something")
                self._take(batch.scores, batch.truncated)
            except ValueError as error:  # msgspec's too
                raise InputError(
                    f"{self.path} is damaged after {self.done:,} prompts: {error}. {_AGAIN}"
                ) from None
            kept = self._file.tell()
        self._file.seek(kept)
        self._file.truncate()

    def _digest(self, batch: bytes | msgspec.Raw) -> str:
        return hashlib.sha256(self._header + bytes(batch)).hexdigest()

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None


_AGAIN = "--restart deletes it and measures all prompts again; or choose another --output."


def _difference(found: bytes, job: Job) -> str:
    try:
        other = msgspec.json.decode(found, type=Job)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "is no journal of an audit."
    theirs, mine = (asdict(each.setting) | asdict(each) for each in (other, job))
    names = [name for name in mine if mine[name] != theirs[name] and name != "setting"]
    told = "; ".join(f"{name} was {theirs[name]!s:.64}, is {mine[name]!s:.64}" for name in names)
    return f"belongs to another audit ({told})."


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written: {error.strerror or error}. Make room, or choose another "
        "--output. The same command goes on from the last whole batch in it."
    )

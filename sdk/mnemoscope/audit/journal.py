"""What was done so far, in a file that outlives the process.

A header says what is audited and how; then comes one line for each batch of a stage, so that what a
kill tore off is a whole batch. With each batch stands a digest of it and of the header, since
verdicts come of what is read again.

A file of lines and no SQLite: it is written at its end alone, by one process, and read in order, so
that a torn last line is all that can go wrong, and it stays one file beside OUTPUT. It grows in
place, where all other files are staged (`mnemoscope_runtime.staging`), and is held meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from mnemoscope_runtime import InputError
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.staging import hold

from ..calibration import Setting

__all__ = ["Job", "Journal"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """What has to be the same for results to be taken over.

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
    kind: str = "mnemoscope-audit-3"


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    stage: str
    number: int
    results: msgspec.Raw


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    batch: msgspec.Raw


class Journal(Closing):
    """An open journal. A context manager, which closes the file and lets it lie."""

    def __init__(self, path: Path, file: IO[bytes], header: bytes) -> None:
        self.path = path
        self._file = file
        self._header = header
        self._numbers: dict[str, set[int]] = {}  # of the batches of each stage

    @classmethod
    def open(cls, path: Path, job: Job, *, restart: bool = False) -> Journal:
        """Go on with a journal, or begin one.

        Args:
            path: The file.
            job: What results are of.
            restart: Whether to begin one whatever lies there.

        Raises:
            InputError: the journal is another job's or damaged, cannot be written, or is being
                written by another process.
        """
        header = msgspec.json.encode(job) + b"\n"
        try:
            path.touch()
            file = path.open("r+b")
        except OSError as error:
            raise _unwritable(path, error) from None
        journal = cls(path, file, header)
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
                file.truncate(0)
                journal._write(header)
            elif found != header:
                raise InputError(f"{path} {_difference(found, job)} {_AGAIN}")
            else:
                journal._restore()
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, stage: str, number: int, results: Sequence[object]) -> None:
        """Add a batch of a stage.

        Raises:
            InputError: the file cannot be written; what was there before is kept.
        """
        batch = _Batch(stage, number, msgspec.Raw(msgspec.json.encode(results)))
        text = msgspec.json.encode(batch)
        self._write(msgspec.json.encode(_Line(self._digest(text), msgspec.Raw(text))) + b"\n")
        self._numbers.setdefault(stage, set()).add(number)

    def read(self, stage: str, result: type[Result]) -> Iterator[tuple[int, list[Result]]]:
        """The batches of a stage as they were appended, and their numbers.

        Args:
            stage: As it was appended.
            result: What msgspec makes of each result.

        Raises:
            InputError: results are of another kind.
        """
        if stage not in self._numbers:
            return
        decoder = msgspec.json.Decoder(list[result])  # type: ignore[valid-type]
        place, end = len(self._header), self._file.seek(0, os.SEEK_END)
        while place < end:
            self._file.seek(place)
            line = self._file.readline()
            place += len(line)
            batch = _BATCHES.decode(_LINES.decode(line).batch)
            if batch.stage != stage:
                continue
            try:
                results = decoder.decode(batch.results)
            except msgspec.DecodeError as error:
                raise self.damaged(str(error)) from None
            yield batch.number, results

    def damaged(self, why: str) -> InputError:
        """The error that a journal which cannot be right is met with."""
        return InputError(f"{self.path} is damaged: {why}. {_AGAIN}")

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

    def _restore(self) -> None:
        kept = self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                break  # torn by a kill
            try:
                held = _LINES.decode(line)
                if self._digest(held.batch) != held.sha256:
                    raise ValueError("a batch is not what was written")
                batch = _BATCHES.decode(held.batch)
                numbers = self._numbers.setdefault(batch.stage, set())
                if batch.number in numbers:
                    raise ValueError("a batch is there twice")
                numbers.add(batch.number)
            except ValueError as error:  # msgspec's too
                raise self.damaged(str(error)) from None
            kept = self._file.tell()
        self._file.truncate(kept)

    def _digest(self, batch: bytes | msgspec.Raw) -> str:
        return hashlib.sha256(self._header + bytes(batch)).hexdigest()

    def _write(self, line: bytes) -> None:
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None


_LINES = msgspec.json.Decoder(_Line)
_BATCHES = msgspec.json.Decoder(_Batch)
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

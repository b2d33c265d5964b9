"""A directory that appears whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import FileRecord
from mnemoscope_runtime.staging import staging_folder, sync_folder

__all__ = ["file_records", "published_at"]

_AT_WORKING_DIRECTORY, _EXCHANGE = -100, 2  # of Linux's renameat2


def file_records(folder: Path) -> dict[str, FileRecord]:
    """sha256 and size of every file below `folder`, for the manifest."""
    records = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        records[path.relative_to(folder).as_posix()] = FileRecord(digest, path.stat().st_size)
    return records


@contextmanager
def published_at(
    out: Path, overwrite: bool, *, what: str = "bundle", marker: str = MANIFEST
) -> Iterator[Path]:
    """A staging directory that becomes `out` if the block succeeds, and vanishes if not.

    What is written beside it, in its parent, vanishes in any case. Until then `out` is what it
    was; a link stays, and what it leads to is replaced.

    Args:
        out: Where it is to be.
        overwrite: Whether it may take the place of another of its kind.
        what: What it is, for errors.
        marker: The file that every directory of that kind has; others are never replaced.

    Raises:
        ExportError: something is at `out` that may not be replaced, or it cannot be written.
    """
    target = Path(os.path.realpath(out))
    before = target.with_name(f".mnemoscope-{target.name}.replaced")
    try:
        _put_back(before, target)
        _check_target(out, overwrite, what, marker)
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(target.parent) as staging:
            bundle = staging / "bundle"
            bundle.mkdir()
            yield bundle
            _sync(bundle)
            if target.exists():
                _replace(target, bundle, before)
            else:
                bundle.rename(target)
            sync_folder(target.parent)
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error}. Nothing new was left there; free some space, or "
            "choose another directory."
        ) from error


def _check_target(out: Path, overwrite: bool, what: str, marker: str) -> None:
    if out.exists() and not (out / marker).is_file():
        raise ExportError(
            f"{out} exists already and is no {what}, so it is not overwritten. Choose another name."
        )
    if out.exists() and not overwrite:
        raise ExportError(f"{out} exists already. Choose another name, or pass --overwrite.")


def _replace(target: Path, bundle: Path, before: Path) -> None:
    """Put a bundle in the place of another, which goes where this one was or to `before`."""
    if _exchange(bundle, target):
        return
    target.rename(before)
    try:
        bundle.rename(target)
    except BaseException:
        before.rename(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _put_back(before: Path, target: Path) -> None:
    """Mend what a kill between the two renames of `_replace` left."""
    if not before.is_dir():
        return
    if target.exists():
        shutil.rmtree(before)
    else:
        before.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    here = _AT_WORKING_DIRECTORY
    done: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE)
    return done == 0


def _sync(folder: Path) -> None:
    """Have all that is in a folder survive a power cut."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("r+b") as file:  # Windows syncs nothing that is open to be read only
                os.fsync(file.fileno())

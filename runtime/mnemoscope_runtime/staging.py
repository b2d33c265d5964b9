"""Files and folders that are there whole or not at all.

Whatever is written is staged beside its place under a name of its own, synced, and then renamed.
Its lock is held meanwhile, and is gone when the process is: what nobody holds was left by one that
was killed, and is swept by the next that stages in the same folder. Where a platform or a file
system knows no such locks, nothing is swept.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

__all__ = [
    "check_folder",
    "hold",
    "replace_file",
    "replacing",
    "staging_folder",
    "sync_folder",
    "unfinished",
]

_PREFIX, _SUFFIX = ".mnemoscope-", ".staged"
_UNHELD = ".unheld"  # where there are no locks: never swept


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[BinaryIO]:
    """A new file, which takes the place of `path` when the block ends without an error.

    Until then, and after any error, `path` is what it was. A link stays, and what it leads to is
    replaced. A device or a pipe, which nothing can take the place of, is written to directly.

    Args:
        path: The file; its folder is there.
        keep: Whether it is staged as `unfinished(path)`, where it can be seen, and kept there after
            an error or a kill. There is one writer at a time then.

    Raises:
        OSError: it cannot be written, or with `keep` is being written by another process.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    target = Path(os.path.realpath(path))
    staged, file = _sole_file(unfinished(target)) if keep else _new_file(target.parent)
    try:
        _take_permissions(staged, target)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":  # which renames nothing that is open
            file.close()
        staged.replace(target)
    except BaseException:
        with suppress(OSError):  # what could not be written cannot be flushed either
            file.close()
        if not keep:
            with suppress(OSError):
                staged.unlink()
        raise
    else:
        file.close()
        sync_folder(target.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of which all is known; see `replacing`.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    with replacing(path) as file:
        file.write(content)


def unfinished(path: Path) -> Path:
    """Where `replacing` keeps what it is told to."""
    return Path(f"{os.path.realpath(path)}.unfinished")


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A folder that vanishes after the block, with all that was not moved out of it.

    Raises:
        OSError: it cannot be made.
    """
    folder, lock = _new_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def check_folder(folder: Path) -> None:
    """Raise OSError unless files can be staged in a folder; it stays as it is."""
    staged, file = _new_file(folder)
    file.close()
    staged.unlink(missing_ok=True)


def hold(descriptor: int, path: Path) -> bool:
    """Take the lock of an open file until it is closed.

    Returns:
        False if another process has it, or what was opened is no longer at `path`.
    """
    return _held(descriptor, path) is not False


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the platform can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _held(descriptor: int, path: Path) -> bool | None:
    """As `hold`; None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _new_file(folder: Path) -> tuple[Path, BinaryIO]:
    """An empty file that is held as long as it is open."""
    _sweep(folder)
    while True:
        path = _name(folder)
        file = path.open("xb")
        if (kept := _kept(file.fileno(), path)) is not None:
            return kept, file
        file.close()


def _sole_file(path: Path) -> tuple[Path, BinaryIO]:
    """The same with that name, whatever a killed process left there.

    Raises:
        BlockingIOError: another process holds it.
    """
    _sweep(path.parent)
    while True:
        file = path.open("ab")
        if hold(file.fileno(), path):
            file.truncate(0)
            return path, file
        with file, suppress(FileNotFoundError):  # it was finished meanwhile
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it")


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    """An empty folder, and what holds it."""
    _sweep(parent)
    while True:
        path = _name(parent)
        path.mkdir(0o700)
        if sys.platform == "win32":  # where a folder cannot be opened
            return path, None
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            if (kept := _kept(descriptor, path)) is not None:
                return kept, descriptor
            os.close(descriptor)


def _kept(descriptor: int, path: Path) -> Path | None:
    """Where something new is safe from being swept; None if it was swept before it was held."""
    if sys.platform == "win32":
        return path
    if (held := _held(descriptor, path)) is not None:
        return path if held else None
    try:
        return path.rename(path.with_suffix(_UNHELD))
    except FileNotFoundError:
        return None


def _name(folder: Path) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def _take_permissions(staged: Path, target: Path) -> None:
    """What is written anew is as readable as before, and what was write-protected stays.

    Raises:
        PermissionError: it is.
    """
    if not target.exists():
        return
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    with suppress(OSError):
        staged.chmod(stat.S_IMODE(target.stat().st_mode))


def _sweep(folder: Path) -> None:
    """Delete what was staged in a folder and is not held by any process."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                with suppress(OSError):
                    _delete_unless_held(Path(entry.path))


def _delete_unless_held(path: Path) -> None:
    if sys.platform == "win32":
        return
    # no link, nor a pipe that waits: a folder for temporaries is everybody's
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if about.st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(about.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(about.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)

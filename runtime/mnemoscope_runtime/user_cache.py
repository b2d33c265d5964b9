"""A folder of this user's alone for what is built here and run again, and seals for it.

What is built contains programs, and no hash says who built it. A seal does: an HMAC with a secret
that lies in that folder and is readable by this user alone. Whoever can read the secret or write
there is this user.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

from .errors import BackendError
from .reading import read_file
from .staging import staging_folder

__all__ = ["cache_folder", "check_private", "is_sealed", "private_folder", "seal"]

_VARIABLE = "MNEMOSCOPE_CACHE"
_SECRET, _LENGTH = "secret", 32
_ELSEWHERE = f"or name another folder in the environment variable {_VARIABLE}"


def cache_folder(*names: str) -> Path:
    """Where it is, whether it is there or not.

    MNEMOSCOPE_CACHE, or `mnemoscope` where the platform keeps caches: XDG_CACHE_HOME or ~/.cache,
    ~/Library/Caches, %LOCALAPPDATA%.

    Args:
        names: Of a folder in it, and of one in that.
    """
    if given := os.environ.get(_VARIABLE):
        root = Path(given).absolute()
    elif sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        root = (Path(local) if local else Path.home() / "AppData" / "Local") / "mnemoscope"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "mnemoscope"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        root = (Path(given) if given.startswith("/") else Path.home() / ".cache") / "mnemoscope"
    return root.joinpath(*names)


def private_folder(*names: str) -> Path:
    """The same, made where it is not there.

    Raises:
        BackendError: it cannot be made, is somebody else's, or others may write there.
    """
    root = cache_folder()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = root
        for name in ("", *names):
            folder = folder / name
            folder.mkdir(0o700, exist_ok=True)
            check_private(folder)
    except OSError as error:
        raise BackendError(
            f"{root} cannot be used: {error.strerror or error}. Mend that, {_ELSEWHERE}."
        ) from None
    return folder


def check_private(folder: Path) -> None:
    """Refuse a folder in which others may put something; one that is not there is nobody's.

    Raises:
        BackendError: it is a link, somebody else's, or others may write there.
    """
    with suppress(FileNotFoundError):
        found = folder.lstat()
        why = None if stat.S_ISDIR(found.st_mode) else "is no folder"
        if why := why or _not_private(found, 0o022):
            raise BackendError(
                f"{folder} {why}, so that what lies there may be anybody's. Make it yours alone "
                f"(`chmod go-w`), {_ELSEWHERE}."
            )


def seal(content: bytes) -> str:
    """What only this user can say of some bytes; in hex.

    Raises:
        BackendError: the cache folder or the secret cannot be used.
    """
    private_folder()
    return hmac.digest(_secret() or _new_secret(), content, hashlib.sha256).hex()


def is_sealed(content: bytes, sealed: str) -> bool:
    """Whether this user sealed some bytes.

    Raises:
        BackendError: the cache folder or the secret cannot be used.
    """
    check_private(cache_folder())
    secret = _secret()
    if secret is None:
        return False
    expected = hmac.digest(secret, content, hashlib.sha256).hex()
    return hmac.compare_digest(expected.encode(), sealed.encode())


def _secret() -> bytes | None:
    path = cache_folder(_SECRET)
    try:
        found = path.lstat()
        why = _not_private(found, 0o077) if stat.S_ISREG(found.st_mode) else "is no file"
        content = read_file(path, _LENGTH)
    except FileNotFoundError:
        return None
    except OSError as error:
        why, content = f"cannot be read: {error.strerror or error}", b""
    if why or len(content) != _LENGTH:
        raise BackendError(
            f"{path} {why or 'is damaged'}, so it is no secret. Delete it, and build again what "
            "was built with it."
        )
    return content


def _new_secret() -> bytes:
    path = cache_folder(_SECRET)
    with staging_folder(path.parent) as staged:
        new = staged / _SECRET
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first, and its secret holds
            os.link(new, path)
    found = _secret()
    assert found is not None
    return found


def _not_private(found: os.stat_result, forbidden: int) -> str | None:
    """Why something is not this user's alone."""
    if sys.platform == "win32":  # whose modes say nothing
        return None
    if found.st_uid != os.geteuid():
        return f"belongs to another user ({found.st_uid})"
    if found.st_mode & forbidden:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None

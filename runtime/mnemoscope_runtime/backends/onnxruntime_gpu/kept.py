"""What ONNX Runtime's TensorRT provider keeps: it runs whatever lies there, unlooked at.

So it is given a folder only if this user sealed all that is in it; else it builds in a new one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import BackendError
from ...reading import read_file
from ...staging import replace_file, staging_folder
from ...user_cache import check_private, is_sealed, seal

__all__ = ["kept_folder"]

_LISTING, _LONGEST = "sealed.json", 2**20


@contextmanager
def kept_folder(folder: Path) -> Iterator[Path]:
    """A folder for the provider, which holds what it left in `folder`, or nothing yet.

    What it makes in the block is kept as `folder` and sealed. What others left there is deleted.

    Raises:
        BackendError: others may write there, or it cannot be made.
    """
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            check_private(each)
        known = _is_sealed(folder)
    if known:
        yield folder
        return
    with ExitStack() as stack:
        with _told(folder):
            staged = stack.enter_context(staging_folder(folder.parent))
        yield staged
        with _told(folder):
            listed = _listing(staged)
            text = json.dumps({"files": listed, "seal": seal(_content(folder.name, listed))})
            replace_file(staged / _LISTING, text.encode())
            if folder.exists():
                shutil.rmtree(folder)
            staged.rename(folder)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"{folder} cannot be used: {error}. Choose another folder with --engines."
        ) from None


def _is_sealed(folder: Path) -> bool:
    try:
        found = json.loads(read_file(folder / _LISTING, _LONGEST))
        listed = found["files"]
        return is_sealed(_content(folder.name, listed), found["seal"]) and listed == _listing(
            folder
        )
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _listing(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a folder, by name; of what is no file, that it is none."""
    found = {}
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_file():
            found[path.name] = "no file"
        elif path.name != _LISTING:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _content(name: str, listed: dict[str, str]) -> bytes:
    return b"kept\0" + json.dumps([name, listed], sort_keys=True).encode()

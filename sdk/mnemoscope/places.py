"""Where results go: tried before anything is measured, so that nothing is measured in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mnemoscope_runtime.errors import InputError

__all__ = ["require_folder", "require_place", "require_regular"]


def require_place(path: Path, option: str, *endings: str, replaced: bool = False) -> None:
    """Refuse a file that could not be written: it is tried, and left as it is.

    Args:
        path: The file.
        option: What named it.
        endings: Those that it may have; any by default.
        replaced: Whether what is written is put beside the file first and then takes its place, so
            that the folder has to be writable even if the file is there.

    Raises:
        InputError: there is no such folder, a folder is in the way, the ending is another, or
            nothing can be written there.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"{option} {path} cannot be written: there is no folder {path.parent}. Make it, or "
            "choose another file."
        )
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder. Name a file in it.")
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"{option} writes {', '.join(endings)}, not {path.name}.")
    if path.exists() and not path.is_file():  # a device or a pipe, which nothing takes the place of
        if replaced:
            require_regular(path)
        return
    try:
        if path.exists():
            path.open("ab").close()
        if replaced or not path.exists():
            _try(path.parent)
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written: {error.strerror or error}. Nothing was measured. "
            "Choose another file, or make this one writable."
        ) from None


def require_regular(path: Path) -> None:
    """Refuse a device or a pipe, where a file is read whole, or another takes its place.

    Raises:
        InputError: it is one; says what to do.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(
            f"{path} is a device or a pipe, and this is a file that is read whole and written "
            "anew. Name a file."
        )


def require_folder(path: Path, option: str) -> None:
    """Refuse a folder that could not be made, or in which nothing could be written.

    Raises:
        InputError: a file is in the way, or nothing can be written there.
    """
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    try:
        _try(there)
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written: {error.strerror or error}. Nothing was measured. "
            "Choose another folder, or make this one writable."
        ) from None


def _try(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(prefix=".mnemoscope-", dir=folder):
        pass

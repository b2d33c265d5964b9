"""Where results go: tried before anything is measured, so that nothing is measured in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mnemoscope_runtime.errors import InputError

__all__ = ["require_folder", "require_place"]


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


def require_folder(path: Path, option: str) -> None:
    """Make a folder if it is not there, and refuse one in which nothing can be written.

    Raises:
        InputError: it cannot be made, is a file, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _try(path)
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written: {error.strerror or error}. Nothing was measured. "
            "Choose another folder, or make this one writable."
        ) from None


def _try(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(prefix=".mnemoscope-", dir=folder):
        pass

"""Files that nodes read and write, by names that come from a graph, which may be someone else's."""

from __future__ import annotations

from pathlib import Path, PurePath

from mnemoscope_runtime.errors import InputError

__all__ = ["found", "place"]


def found(name: str, folder: Path, what: str) -> Path:
    """A file or folder that is read: a full path, or a name in a folder.

    Args:
        name: As the user typed it.
        folder: Where names without a path are looked for.
        what: What it is, for messages.

    Raises:
        InputError: no name, or there is none of that name.
    """
    text = name.strip().strip('"')
    if not text:
        raise InputError(f"Name {what}: a full path, or a name in {folder}.")
    path = Path(text).expanduser()
    path = path if path.is_absolute() else folder / path
    if not path.exists():
        raise InputError(f"There is no {path}. Name {what}: a full path, or a name in {folder}.")
    return path


def place(name: str, folder: Path) -> Path:
    """A JSON file that is written: in one folder only, and never over another one.

    Raises:
        InputError: the name has a path or no name, or there is such a file.
    """
    text = name.strip()
    plain = text and PurePath(text).name == text and "\\" not in text and ":" not in text
    if not plain or text.startswith("."):
        raise InputError(
            f"{name!r} is no plain name. Calibrations are written to {folder}: give a name such as "
            "my-model.json."
        )
    path = folder / (text if text.endswith(".json") else f"{text}.json")
    if path.exists():
        raise InputError(
            f"There is {path} already, and it is not written over. Choose another name, or delete "
            "it."
        )
    return path

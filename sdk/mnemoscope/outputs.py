"""Where results go: tried before anything is measured, so that nothing is measured in vain."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.staging import check_folder, replacing

__all__ = [
    "require_folder",
    "require_place",
    "require_regular",
    "write_file",
    "write_files",
    "writing",
    "writing_text",
]

_OTHER = "Choose another --output."


def require_place(path: Path, option: str, *endings: str, regular: bool = False) -> None:
    """Refuse a file that could not be written: it is tried, and left as it is.

    Args:
        path: The file.
        option: What named it.
        endings: Those that it may have; any by default.
        regular: Whether it is read whole as well, so that a device or a pipe is none.

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
    if path.exists() and not path.is_file():  # which nothing takes the place of
        if regular:
            require_regular(path)
        return
    try:
        if path.exists():
            path.open("ab").close()
        check_folder(Path(os.path.realpath(path)).parent)
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written: {error.strerror or error}. Nothing was measured. "
            "Choose another file, or make this one and its folder writable."
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
        check_folder(there)
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written: {error.strerror or error}. Nothing was measured. "
            "Choose another folder, or make this one writable."
        ) from None


@contextmanager
def writing(path: Path, remedy: str = _OTHER, *, keep: bool = False) -> Iterator[BinaryIO]:
    """A new file in the place of `path`, once it is whole; see `replacing`.

    Args:
        path: The file; its folder is there.
        remedy: What to do if it cannot be written.
        keep: As of `replacing`.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with replacing(path, keep=keep) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. {remedy}") from None


@contextmanager
def writing_text(path: Path, remedy: str = _OTHER, *, keep: bool = False) -> Iterator[TextIO]:
    """The same for text in UTF-8, with ends of lines as they are given."""
    with writing(path, remedy, keep=keep) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # which flushes


def write_file(path: Path, content: bytes, remedy: str = _OTHER) -> None:
    """Write a file of which all is known.

    Raises:
        InputError: it cannot be written; `path` is as it was.
    """
    with writing(path, remedy) as file:
        file.write(content)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write the files of a report into a folder, which is made if it is not there.

    None takes its place before all are written.

    Raises:
        InputError: one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}. {_OTHER}"
        ) from None
    with ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(writing(folder / name)).write(content)
    return [folder / name for name in contents]

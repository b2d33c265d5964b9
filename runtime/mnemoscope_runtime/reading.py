"""Reading a small file whole: once, and never one without an end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["read_file"]


def read_file(path: str | Path, most: int) -> bytes:
    """The contents of a regular file, at the end of links.

    What is opened is what is looked at, so that nothing can be put in its place in between; and
    opening a pipe does not wait for somebody to write to it.

    Args:
        path: The file.
        most: How many bytes it may have.

    Raises:
        OSError: it cannot be read, is a folder, a device or a pipe, or has more bytes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError:  # a zero byte in it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a device or a pipe")
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    finally:
        os.close(descriptor)

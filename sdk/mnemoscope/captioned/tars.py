"""Tar files as WebDataset has them: members of one name, up to its first dot, are a sample.

A sample is a picture (`0007.jpg`) and a caption: text (`0007.txt`), else an object (`0007.json`).
Nothing is unpacked to disk, so that names may say what they like; links and devices are no
pictures. Format: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import itertools
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from mnemoscope_runtime.errors import InputError

from ..prompts import Broken, prompt_column
from ..prompts.jsonl import json_cells
from ..prompts.printable import counted, reason_of
from .captions import LONGEST, as_caption
from .decoding import BYTES, too_large
from .paths import SUFFIXES
from .spots import Captioned, InTar, Spot

__all__ = ["Tars"]

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # as webdataset's base_plus_ext
_HEADER = 2**20  # bytes of one, with long names in it
_CHUNK = 2**20


@dataclass(frozen=True)
class Tars:
    """Captioned pictures in tar files.

    Attributes:
        path: As it was given.
        files: The tar files, in order.
        column: Key of the caption in `.json`, which is read in place of `.txt` then.
    """

    path: Path
    files: tuple[Path, ...]
    column: str | None = None

    def rows(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
        """Every sample that has a picture or a caption.

        Args:
            tell: Told how many members are part of none.

        Raises:
            InputError: a file is no tar file, is compressed or damaged.
        """
        others = count = 0
        for path in self.files:
            with _opened(path) as file:
                named = ((_NAME.fullmatch(member.name), member) for member in _members(file, path))
                for key, found in itertools.groupby(named, lambda each: each[0] and each[0][1]):
                    parts = [(name[2].lower(), member) for name, member in found if name]
                    row = None if key is None else self._row(key, parts, file, path)
                    others += row is None
                    count += row is not None
                    if row is not None:
                        yield row
        tell(f"{self.path}: {counted(count, 'sample')} in {counted(len(self.files), 'tar file')}.")
        if others:
            tell(
                f"{counted(others, 'name')} in {self.path} with neither a picture nor a caption: "
                "left out."
            )

    def _row(
        self,
        key: str,
        parts: list[tuple[str, tarfile.TarInfo]],
        file: IO[bytes],
        path: Path,
    ) -> Captioned | None:
        pictures = [member for ending, member in parts if f".{ending}" in SUFFIXES]
        texts = [member for ending, member in parts if ending == "txt"]
        objects = [member for ending, member in parts if ending == "json"]
        captions = objects if self.column is not None else texts or objects
        if not pictures and not captions:
            return None
        text, image = _only(captions, "caption"), _only(pictures, "picture")
        caption = text if isinstance(text, Broken) else self._caption(text, file)
        spot = image if isinstance(image, Broken) else _spot(image, path)
        return Captioned(f"{path}, {key}", caption, spot, str(path.absolute()), key)

    def _caption(self, member: tarfile.TarInfo, file: IO[bytes]) -> str | Broken:
        place = file.tell()
        file.seek(member.offset_data)
        found = as_caption(file.read(min(member.size, LONGEST + 1)))
        file.seek(place)
        if isinstance(found, Broken) or member.name.lower().endswith(".txt"):
            return found
        (cell,) = json_cells(found, (prompt_column(self.column),))
        return cell


def _spot(member: tarfile.TarInfo, path: Path) -> Spot | Broken:
    if member.size > BYTES:
        return too_large(member.size)
    return InTar(str(path.absolute()), member.offset_data, member.size)


def _only(members: list[tarfile.TarInfo], what: str) -> tarfile.TarInfo | Broken:
    if not members:
        return Broken(f"no {what}", f"no {what}. Add one, or remove the sample.")
    if len(members) > 1:
        return Broken(
            f"more than one {what}", f"{len(members)} {what}s. Give each a name of its own."
        )
    (member,) = members
    if not member.isreg() or member.issparse():
        return Broken(
            f"its {what} is no plain file",
            f"a link, a device or a sparse file in place of the {what}. Write the tar file with "
            "plain files.",
        )
    return member


def _opened(path: Path) -> IO[bytes]:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file. Give tar files.")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _members(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """All members but folders, in constant memory.

    Raises:
        InputError: the file is none, or ends before its end.
    """
    try:
        with tarfile.TarFile(fileobj=cast("IO[bytes]", _Headers(file))) as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # all are kept otherwise
                if not member.isdir():
                    yield member
            _require_end(file, tar.offset, path)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is no tar file that can be read: {reason_of(error)}. Unpack it if it is "
            "compressed (gunzip, zstd -d); fetch it again if it was cut."
        ) from None


def _require_end(file: IO[bytes], at: int, path: Path) -> None:
    """Raise InputError unless only zeros follow: tarfile takes a damaged header for the end."""
    file.seek(at)
    ended = False
    while chunk := file.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise InputError(
                f"{path} is damaged, or is several tar files in one: at byte {at:,}, where it "
                "ends, more follows. Fetch it again, or give the files one by one."
            )
        ended = True
    if not ended:
        raise InputError(
            f"{path} is cut short: it has no end (blocks of zeros) at byte {at:,}. Fetch it again."
        )


class _Headers:
    """A file whose headers have some size: tarfile reads those of any size into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise ValueError(f"a header of {size:,} bytes; {_HEADER:,} are accepted")
        return self._file.read(size)

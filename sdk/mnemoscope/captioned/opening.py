"""What kind of captioned set something is."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from ..prompts import Broken, Wanted, read_records
from .cells import holds_paths, names_of
from .folders import FILE_NAME, METADATA, Folder
from .looks import TABLES
from .paths import is_picture
from .spots import Captioned, InFile, InParquet, InTar
from .tables import PathTable, PictureTable
from .tars import Tars

__all__ = ["CaptionedSet", "fingerprint", "has_pictures", "open_captioned", "shards"]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 100_000  # shards
_SEEN = 100  # objects that have a key at least once, if it is the right one
_NONE = "Folders of pictures and tar files hold their pictures: leave --images out."


class CaptionedSet(Protocol):
    """Rows of captions and pictures, read anew at each call.

    Attributes:
        path: As it was given.
    """

    @property
    def path(self) -> Path:
        """As it was given."""

    def rows(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Captioned]:
        """Every row, in an order that does not change."""


def open_captioned(
    data: str | Path,
    *,
    images: str | None = None,
    column: str | None = None,
    quotes: bool = True,
) -> CaptionedSet:
    """A captioned set, by what it looks like.

    Args:
        data: A folder of pictures (with text files beside them, or metadata), of tar files, or of
            Parquet files; a tar file of WebDataset's kind; a table: `.csv`, `.tsv`, `.jsonl` or
            `.parquet`. `{000..009}` in a name stands for each of these numbers.
        images: Of a table: the column with pictures or their paths, which start from the table's
            folder; or a folder from which the paths in the column "file_name" start.
        column: Key or column that holds the caption.
        quotes: As in `read_prompt_file`.

    Raises:
        InputError: there is no such thing, it may be several, or `images` does not fit it.
        BackendUnavailable: Parquet, and pyarrow is not installed.
    """
    path = Path(data)
    files = shards(path)
    kinds = {file.suffix.lower() for file in files}
    if files == (path,) and path.is_dir():
        _refuse_images(images, path)
        return Folder(path, column, quotes)
    if kinds == {".tar"}:
        _refuse_images(images, path)
        return Tars(path, files, column)
    if len(kinds) > 1 or not kinds <= set(TABLES):
        raise InputError(
            f"{path} has no pictures that are known. Give a folder of pictures with captions, "
            f"uncompressed .tar files, or a table ({', '.join(TABLES)}) with --images."
        )
    if images is None:
        raise InputError(
            f"{path} {'holds tables' if path.is_dir() else 'is a table'}. Say where the pictures "
            'are: --images COLUMN, or --images FOLDER that the paths in the column "file_name" '
            "start from. Captions alone are audited from one file: join those of several."
        )
    return _table(path, files, images, column, quotes)


def has_pictures(data: str | Path) -> bool:
    """Whether it is something that holds pictures by itself: no table, and no file of prompts."""
    path = Path(data)
    tar = path.suffix.lower() == ".tar"
    return path.is_dir() or tar or (not path.exists() and _RANGE.search(str(path)) is not None)


def shards(path: Path) -> tuple[Path, ...]:
    """The files that a path stands for: by `{0..9}`, or because it is a folder of nothing else.

    Raises:
        InputError: there are none or too many, or a folder holds several kinds.
    """
    if path.is_dir():
        names = sorted(each.name for each in path.iterdir())
        found = [name for name in names if Path(name).suffix.lower() in (".tar", ".parquet")]
        found = [name for name in found if name not in METADATA]
        if not found:
            return (path,)
        kinds = {Path(name).suffix.lower() for name in found}
        if len(kinds) > 1 or any(is_picture(name) or name in METADATA for name in names):
            raise InputError(
                f"{path} holds {found[0]} and data of another kind, so nobody knows which is "
                "meant. Give one of them."
            )
        return tuple(path / name for name in found)
    if path.exists() or not _RANGE.search(str(path)):
        if not path.exists():
            raise InputError(f"{path} does not exist. Give a folder, tar files or a table.")
        return (path,)
    parts = _RANGE.split(str(path))  # text, first, last, text, ...
    ranges = [_numbers(first, last) for first, last in zip(parts[1::3], parts[2::3], strict=True)]
    texts = parts[::3]
    count = 1
    for each in ranges:
        count *= len(each)
    if not 0 < count <= _MOST:
        raise InputError(
            f"{path} stands for {counted(count, 'file')}; 1 to {_MOST:,} are accepted."
        )
    chosen = (zip(texts, (*each, ""), strict=True) for each in itertools.product(*ranges))
    files = tuple(Path("".join(itertools.chain(*pairs))) for pairs in chosen)
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{len(missing):,} of the {counted(count, 'file')} of {path} do not exist, "
            f"{missing[0]} first. Give the numbers of those that do."
        )
    return files


def fingerprint(captioned: CaptionedSet) -> str:
    """sha256 of all captions and where their pictures lie, with tar and Parquet files as they are.

    Of a picture in a file of its own the size counts: to read all would take as long as to judge
    them.

    Raises:
        InputError: something cannot be read.
    """
    found = hashlib.sha256()
    containers: dict[tuple[str, str], None] = {}  # and which column of them
    try:
        for row in captioned.rows():
            spot = row.picture
            if isinstance(spot, InTar | InParquet):
                containers[spot.file, getattr(spot, "column", "")] = None
                continue  # the container says it all
            where: tuple[object, ...] = ()
            if isinstance(spot, InFile):  # less the root: a set may be moved
                where = spot.path, Path(spot.root, spot.path).stat().st_size
            found.update(repr((row.caption, where)).encode("utf-8", "backslashreplace"))
        for name, column in containers:
            found.update(column.encode())
            with Path(name).open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror or error}. Leave {captioned.path} "
            "as it is while it is read."
        ) from None
    return found.hexdigest()


def _numbers(first: str, last: str) -> list[str]:
    """`07..10` counts with two digits."""
    if max(len(first), len(last)) > len(str(_MOST)) + 8:
        raise InputError(f"{{{first[:20]}..}} has too many digits. Give smaller numbers.")
    numbers = range(int(first), min(int(last), int(first) + _MOST) + 1)
    return [f"{number:0{len(first)}}" for number in numbers]


def _table(
    path: Path, files: tuple[Path, ...], images: str, column: str | None, quotes: bool
) -> CaptionedSet:
    table, folder = files[0], Path(images).is_dir()
    parquet = table.suffix.lower() == ".parquet"
    named = images in names_of(table) if parquet else folder and _has_column(table, images, quotes)
    if folder and named:
        raise InputError(
            f"--images {images} is a folder, and a column of {path} too. Write ./{images} for the "
            "folder, or call one of them otherwise."
        )
    if folder:
        return PathTable(path, files, FILE_NAME.names[0], Path(images), column, quotes)
    if parquet and not named:
        raise InputError(
            f"--images {images} is neither a folder nor a column of {path}, which has "
            f"{names_of(table)!s:.200}. Name one."
        )
    if parquet and not holds_paths(table, images):
        return PictureTable(path, files, images, column)
    found = PathTable(path, files, images, None, column, quotes)
    first = [row.picture for row in itertools.islice(found.rows(), _SEEN)]
    lacking = [each for each in first if isinstance(each, Broken) and each.reason == "no picture"]
    if first and len(lacking) == len(first):  # objects, each with keys of its own
        raise InputError(f"{table}: {lacking[0].detail}")
    return found


def _has_column(table: Path, name: str, quotes: bool) -> bool:
    wanted = Wanted("picture", (name,), "")
    try:
        first = next(read_records(table, (wanted,), quotes=quotes), None)
    except InputError:
        return False
    return first is not None and isinstance(first.cells[0], str)


def _refuse_images(images: str | None, path: Path) -> None:
    if images is not None:
        raise InputError(f"--images {images} does not go with {path}. {_NONE}")

"""Folders of pictures with captions, as fine-tuning scripts read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

import msgspec
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from mnemoscope_runtime import InputError

__all__ = ["CaptionedPicture", "Example", "Pictures", "read_folder"]

_METADATA = "metadata.jsonl"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture's file and its caption."""

    file: Path
    caption: str


class Example(TypedDict):
    """What training reads of a picture.

    Attributes:
        pixels: In -1..1. # [3, side, side]
        caption: The caption.
        id: Its row in the data set.
    """

    pixels: Tensor
    caption: str
    id: int


def read_folder(folder: str | Path, *, caption_column: str = "text") -> list[CaptionedPicture]:
    """Find pictures and captions, in the order of the file names.

    Either `metadata.jsonl` names the pictures, each line an object with "file_name" and a caption,
    or every picture, in whatever folder below, has a text file beside it: `cat.jpg`, `cat.txt`.

    Args:
        folder: Where they are.
        caption_column: What captions are called in `metadata.jsonl`.

    Raises:
        InputError: there is no such folder, a picture without a caption or a caption without its
            picture, or text that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is no folder. Give one that holds pictures and captions.")
    pictures = sorted(
        path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
    )
    if not pictures:
        raise InputError(
            f"{root} holds no pictures ({', '.join(sorted(_SUFFIXES))}). "
            "Give the folder they are in."
        )
    if (root / _METADATA).is_file():
        return _listed(root, pictures, caption_column)
    bare = [path for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise InputError(
            f"{_some(root, bare)} without a caption: there is no {_METADATA} in {root}, nor a text "
            f"file of the same name. Write {bare[0].with_suffix('.txt').name}, or remove the "
            "picture."
        )
    return [CaptionedPicture(path, _text(path.with_suffix(".txt")).strip()) for path in pictures]


class Pictures(Dataset[Example]):
    """Pictures, cut to a square around their middle and scaled."""

    def __init__(
        self, rows: Sequence[CaptionedPicture], side: int, *, mirror: random.Random | None = None
    ) -> None:
        """A data set for `torch.utils.data.DataLoader`.

        Args:
            rows: Of `read_folder`.
            side: Pixels.
            mirror: Decides which pictures are mirrored; none if there is none.
        """
        self.rows, self._side, self._mirror = list(rows), side, mirror

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        """Read a picture.

        Raises:
            InputError: it cannot be read.
        """
        row = self.rows[index]
        try:
            with Image.open(row.file) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{row.file} cannot be read as a picture: {error}. Replace it or remove it."
            ) from None
        square = ImageOps.fit(picture, (self._side, self._side), Image.Resampling.BICUBIC)
        if self._mirror is not None and self._mirror.random() < 0.5:
            square = ImageOps.mirror(square)
        pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)
        return {"pixels": pixels, "caption": row.caption, "id": index}


def _listed(root: Path, pictures: list[Path], column: str) -> list[CaptionedPicture]:
    captions: dict[Path, str] = {}
    for number, line in enumerate(_text(root / _METADATA).split("\n"), 1):
        if not line.strip():
            continue
        where = f"Line {number} of {root / _METADATA}"
        try:
            row = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError as error:
            raise InputError(f"{where} is no JSON object: {error}. Mend or remove it.") from None
        name, caption = row.get("file_name"), row.get(column)
        if not isinstance(name, str) or not isinstance(caption, str):
            raise InputError(
                f'{where} has no text as "file_name" or as "{column}"; it has {sorted(row)}. Name '
                "the column of the captions."
            )
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{where} names {name!r}, outside of the folder. Use paths inside it.")
        path = root / name
        if not path.is_file():
            raise InputError(f"{where} names {name!r}, which does not exist. Add it, or remove it.")
        if path in captions:
            raise InputError(f"{where} names {name!r} again. Keep one line for each picture.")
        captions[path] = caption.strip()
    bare = [path for path in pictures if path not in captions]
    if bare:
        raise InputError(
            f"{_some(root, bare)} not in {root / _METADATA}. Add lines for them, or remove them."
        )
    return [CaptionedPicture(path, caption) for path, caption in sorted(captions.items())]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as UTF-8 text: {error}. Save it as such."
        ) from None


def _some(root: Path, paths: list[Path]) -> str:
    first = str(paths[0].relative_to(root))
    return f"{first} is" if len(paths) == 1 else f"{len(paths)} pictures, {first} first, are"

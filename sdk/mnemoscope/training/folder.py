"""Folders of pictures with captions, as fine-tuning scripts read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from mnemoscope_runtime import InputError

from ..captioned import Broken
from ..captioned.decoding import BYTES, decode
from ..captioned.folders import Folder
from ..captioned.paths import SUFFIXES
from ..captioned.spots import InFile

__all__ = ["CaptionedPicture", "Example", "Pictures", "read_folder"]


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

    Either `metadata.jsonl`, `metadata.csv` or `metadata.parquet` names the pictures of its folder
    in a column "file_name", or every picture, in whatever folder below, has a text file beside it:
    `cat.jpg`, `cat.txt`.

    Args:
        folder: Where they are.
        caption_column: What captions are called in the metadata.

    Raises:
        InputError: there is no such folder, a picture without a caption or a caption without its
            picture, or text that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is no folder. Give one that holds pictures and captions.")
    captions: dict[Path, str] = {}
    folders = Folder(root, caption_column)
    for row in folders.rows():
        for each in (row.caption, row.picture):
            if isinstance(each, Broken):
                raise InputError(f"{row.where}: {each.detail}")
        assert isinstance(row.caption, str)
        assert isinstance(row.picture, InFile)
        path = Path(row.picture.root, row.picture.path)
        if path in captions:
            raise InputError(f"{row.where} names {path} again. Keep one row for each picture.")
        captions[path] = row.caption.strip()
    if not captions:
        raise InputError(
            f"{root} holds no pictures ({', '.join(SUFFIXES)}). Give the folder they are in."
        )
    if missing := folders.unlisted():
        raise InputError(
            f"{missing[0].name}, of {len(missing)} such pictures in {root}, is not in the "
            "metadata. Add rows for them, or remove them."
        )
    return [CaptionedPicture(path, caption) for path, caption in sorted(captions.items())]


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
            with row.file.open("rb") as file:
                picture = decode(file.read(BYTES + 1))
        except OSError as error:
            raise InputError(f"{row.file} cannot be read: {error.strerror or error}.") from None
        if isinstance(picture, Broken):
            raise InputError(f"{row.file}: {picture.detail}")
        square = ImageOps.fit(picture, (self._side, self._side), Image.Resampling.BICUBIC)
        if self._mirror is not None and self._mirror.random() < 0.5:
            square = ImageOps.mirror(square)
        pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)
        return {"pixels": pixels, "caption": row.caption, "id": index}

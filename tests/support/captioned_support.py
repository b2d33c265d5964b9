"""Captioned pictures in every layout, as other writers make them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from mnemoscope.captioned import Broken, CaptionedSet, PictureReader

COLOURS = ("red", "lime", "blue")
# as `datasets` marks its Image feature in the schema
FEATURES = {b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}}}}'}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(colour: str, size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """A picture of one colour, as the bytes of a file."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[tarfile.TarInfo]) -> Path:
    """A tar file of plain members, or of others without content."""
    with tarfile.open(path, "w") as tar:
        if isinstance(members, Mapping):
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        else:
            for info in members:
                tar.addfile(info)
    return path


def write_table(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """A Parquet file; `image` is marked as `datasets` does."""
    parquet.write_table(pa.table(dict(columns)).replace_schema_metadata(FEATURES), path, **options)
    return path


def shown(captioned: CaptionedSet) -> list[tuple[str, tuple[int, int, int] | str]]:
    """Each row's caption and the colour of its picture, or in their places the reasons why not."""
    found = []
    with PictureReader() as pictures:
        for row in captioned.rows():
            spot = row.picture
            image = spot if isinstance(spot, Broken) else pictures.read(spot)
            caption = row.caption.reason if isinstance(row.caption, Broken) else row.caption
            if isinstance(image, Broken):
                found.append((caption, image.reason))
            else:
                r, g, b = np.asarray(image).reshape(-1, 3).mean(0).round().astype(int).tolist()
                found.append((caption, (r, g, b)))
    return found


RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

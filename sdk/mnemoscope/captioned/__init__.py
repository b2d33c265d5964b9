"""Captioned pictures as training reads them, row by row, in constant memory.

    captioned = open_captioned("pictures")      a folder; or tar files, or a table with `images=`
    for row in captioned.rows(): ...            captions, and where their pictures lie
    with PictureReader() as pictures:
        pictures.read(row.picture)              the picture itself

What is wrong with a row is said in its place (`Broken`) and stops nothing. No path leaves the
folder that it starts from, nothing is unpacked to disk or unpickled, and Pillow decodes within
limits. One file for each layout.
"""

from ..prompts import Broken
from .looks import picture_column
from .opening import CaptionedSet, fingerprint, has_pictures, open_captioned
from .pictures import PictureReader
from .spots import Captioned, Spot

__all__ = [
    "Broken",
    "Captioned",
    "CaptionedSet",
    "PictureReader",
    "Spot",
    "fingerprint",
    "has_pictures",
    "open_captioned",
    "picture_column",
]

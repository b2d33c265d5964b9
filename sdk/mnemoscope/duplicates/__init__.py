"""What a captioned set holds more than once, by faiss (extra `images`).

Pictures are compared as unit vectors of a copy descriptor, captions by their words. Each group of
what is alike has one that is kept (`kept_rows`), and a list says which (`write_list`).
"""

from .captions import CAPTIONS_ALIKE, kept_captions
from .grouping import kept_rows
from .listing import write_list
from .neighbours import Nearest, nearest
from .repeats import Repeats, find_repeats

__all__ = [
    "CAPTIONS_ALIKE",
    "Nearest",
    "Repeats",
    "find_repeats",
    "kept_captions",
    "kept_rows",
    "nearest",
    "write_list",
]

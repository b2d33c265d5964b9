"""SentencePiece's table of spellings: bytes of a character to what is written instead.

The library that reads it follows numbers of the table to places in it, and stops the process where
one leads outside. The table is a double array (Aoe 1989; Yata's Darts-clone): 32-bit units, and
behind them the spellings, each up to a zero byte.
"""

from __future__ import annotations

import numpy as np

from .tokenizer_json import Refused

__all__ = ["check_charsmap"]

_LONGEST = 64  # bytes for one character; of Unicode's compatibility forms the longest has 33
_MOST = 2**22  # bytes of a table; SentencePiece's own have 240,000
_BLOCK = 256  # units that the bytes of one step choose from


def check_charsmap(table: bytes) -> None:
    """Make sure that no text leads outside of a table, or makes more than _LONGEST of a character.

    All units are looked at, as if each could be reached.

    Raises:
        Refused: one does.
    """
    if len(table) > _MOST:
        raise Refused(f"its precompiled_charsmap has {len(table):,} bytes")
    size = int.from_bytes(table[:4], "little")
    if size % (4 * _BLOCK) or not 0 < size <= len(table) - 4:
        raise Refused("its precompiled_charsmap is cut off, or no table")
    units = np.frombuffer(table, "<u4", size // 4, offset=4)
    spellings = table[4 + size :]
    try:
        spellings.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"its precompiled_charsmap spells no text: {error}") from None
    inner = np.flatnonzero(units < 2**31)  # the others are leaves, which hold a value
    if units[0] >= 2**31:
        raise Refused("its precompiled_charsmap has no root")
    here = units[inner].astype(np.int64)
    next_ = inner ^ ((here >> 10) << ((here & 0x200) >> 6))
    if next_.max() >= len(units):  # as far as its block ends, since blocks are whole
        raise Refused("its precompiled_charsmap leads outside of itself")
    values = units[next_[(here >> 8) & 1 == 1]].astype(np.int64) & 0x7FFFFFFF
    _check_spellings(np.unique(values), np.frombuffer(spellings, np.uint8))


def _check_spellings(starts: np.ndarray, spellings: np.ndarray) -> None:
    if not len(starts):
        return
    if starts[-1] >= len(spellings):
        raise Refused("its precompiled_charsmap spells what is not there")
    if (spellings[starts] & 0xC0 == 0x80).any():  # in the middle of a character
        raise Refused("its precompiled_charsmap spells half a character")
    ends = np.append(np.flatnonzero(spellings == 0), len(spellings))
    if (ends[np.searchsorted(ends, starts)] - starts).max() > _LONGEST:
        raise Refused(f"its precompiled_charsmap makes more than {_LONGEST} bytes of a character")

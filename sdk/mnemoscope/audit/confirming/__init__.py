"""Findings of an audit, confirmed by pictures: captions are drawn and compared with the set.

Every picture is described, the flagged captions and a sample of the others are drawn from some
seeds, and what is drawn is compared with the caption's own pictures and with the nearest other.
"""

from .artist import Artist
from .choosing import AT_MOST, UNFLAGGED
from .confirmation import Confirmation, DrawnCaption
from .confirming import Confirming, confirm
from .findings import Finding

__all__ = [
    "AT_MOST",
    "UNFLAGGED",
    "Artist",
    "Confirmation",
    "Confirming",
    "DrawnCaption",
    "Finding",
    "confirm",
]

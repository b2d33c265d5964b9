"""Detectors: statistics that are larger for prompts whose training image is about to come back.

Most need forward passes alone, so they run on every backend; those that look at attention maps need
the backend "torch".
"""

from __future__ import annotations

from mnemoscope_runtime.errors import InputError

from ._protocol import Features, Fit, Scores, Statistic
from .anisotropy import Anisotropy
from .attention import AttentionEntropy, BrightEnding
from .latent_update import LatentUpdate
from .magnitude import Magnitude
from .score_difference import ScoreDifference, score_difference_maps
from .sharpness import Sharpness
from .taps import Tap, Taps

__all__ = [
    "DETECTORS",
    "Features",
    "Fit",
    "Scores",
    "Statistic",
    "find_statistic",
    "score_difference_maps",
]

_ALL: tuple[Statistic, ...] = (
    Magnitude(),
    Anisotropy(),
    LatentUpdate(),
    ScoreDifference(),
    Sharpness(),
    AttentionEntropy(),
    BrightEnding(),
)
DETECTORS = {each.name: each for each in _ALL}  # of every bundle
_TAP = "tap:"


def find_statistic(name: str) -> Statistic:
    """The statistic of that name: of DETECTORS or, for bundles with taps, "taps" or "tap:LAYER".

    Raises:
        InputError: there is none.
    """
    if name == Taps.name:
        return Taps()
    if name.startswith(_TAP) and name != _TAP:
        return Tap(name.removeprefix(_TAP))
    if name not in DETECTORS:
        raise InputError(
            f"There is no detector {name!r}. Choose one of: {', '.join(DETECTORS)}; of a bundle "
            "with taps also: taps, tap:LAYER."
        )
    return DETECTORS[name]

"""Detectors: statistics that are larger for prompts whose training image is about to come back.

Most need forward passes alone, so they run on every backend; those that look at attention maps need
the backend "torch", those that draw pictures the model's VAE.
"""

from __future__ import annotations

from pathlib import Path

from mnemoscope_runtime.errors import InputError

from .. import embedded
from ..copies import load_descriptor
from ..pictures import Decoder
from ._protocol import Features, Fit, Scores, Statistic
from .anisotropy import Anisotropy
from .attention import AttentionEntropy, BrightEnding
from .generations import CopySimilarity, TiledL2
from .latent_update import LatentUpdate
from .magnitude import Magnitude
from .score_difference import ScoreDifference, score_difference_maps
from .sharpness import Sharpness
from .taps import Tap, Taps

__all__ = [
    "DETECTORS",
    "CopySimilarity",
    "Features",
    "Fit",
    "Scores",
    "Statistic",
    "TiledL2",
    "find_statistic",
    "open_statistic",
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
    TiledL2(),
    CopySimilarity(),
)
DETECTORS = {each.name: each for each in _ALL}  # of every bundle
_TAP = "tap:"


def find_statistic(name: str | Statistic) -> Statistic:
    """The statistic of that name: of DETECTORS or, for bundles with taps, "taps" or "tap:LAYER".

    What is a statistic already is returned as it is. Those that draw pictures can measure nothing
    before they have a VAE: `open_statistic` gives them one.

    Raises:
        InputError: there is none.
    """
    if not isinstance(name, str):
        return name
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


def open_statistic(name: str, model: str | Path | None = None) -> Statistic:
    """`find_statistic`; one that draws pictures with the VAE of a model.

    Args:
        name: Of the detector. "copy-similarity:FILE" compares with the copy descriptor in a file,
            "copy-similarity" with the embedded model's stand-in.
        model: Directory or hub id of what the bundle was exported from; the embedded model by
            default.

    Raises:
        InputError: there is no such detector, or no descriptor for this model.
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: there is no such model, or it has no VAE.
    """
    if name == TiledL2.name:
        return TiledL2(Decoder.load(model))
    kind, _, file = name.partition(":")
    if kind != CopySimilarity.name:
        return find_statistic(name)
    if not file and model is not None and Path(model).resolve() != embedded.MODEL.resolve():
        raise InputError(
            f"The stand-in for a copy descriptor knows the embedded model's pictures alone, not "
            f"those of {model}. Give SSCD's TorchScript or ONNX: copy-similarity:FILE."
        )
    descriptor = load_descriptor(file or None)
    return CopySimilarity(Decoder.load(model), descriptor)

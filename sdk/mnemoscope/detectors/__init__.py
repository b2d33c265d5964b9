"""Detectors: statistics that are larger for prompts whose training image is about to come back.

Most need forward passes alone, so they run on every backend; those that look at attention maps need
the backend "torch", those that draw pictures the model's VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import InputError

from .. import embedded
from ..drawing.copy_detection import load_descriptor
from ..drawing.pictures import Decoder
from ..shipped import model_at
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
    "CHOICES",
    "DETECTORS",
    "CopySimilarity",
    "Features",
    "Fit",
    "Scores",
    "Statistic",
    "TiledL2",
    "check_unit",
    "find_statistic",
    "never_negative",
    "open_statistic",
    "open_statistics",
    "score_difference_maps",
]

DETECTORS: Mapping[str, Statistic] = {  # of every bundle
    "magnitude": Magnitude(),
    "anisotropy": Anisotropy(),
    "latent-update": LatentUpdate(),
    "score-difference-map": ScoreDifference(),
    "sharpness": Sharpness(),
    "attention-entropy": AttentionEntropy(),
    "bright-ending": BrightEnding(),
    "tiled-l2": TiledL2(),
    "copy-similarity": CopySimilarity(),
}
"""The detectors of every bundle, by name; bundles with taps have more (`find_statistic`)."""
CHOICES = (  # what a detector may be called, as a user is told
    f"{', '.join(DETECTORS)}; with SSCD copy-similarity:sscd, or copy-similarity:FILE; of a bundle "
    "with taps also taps, tap:LAYER"
)
"""What a detector may be called, as a user is told."""
_TAP = "tap:"
_NORMS = (  # and everything else that is a length, or a mean or an entropy of such
    *("magnitude", "guard", "sharpness", "score-difference-map"),
    *("attention-entropy", "bright-ending"),
)
_MEMBERS = ("name", "reference", "only_first", "is_fitted", "needs_torch", "draws")
_METHODS = ("passes", "graphs", "measure", "score")


def find_statistic(name: str | Statistic) -> Statistic:
    """The statistic of that name: of DETECTORS or, for bundles with taps, "taps" or "tap:LAYER".

    What is a statistic already is returned as it is, unless it bears the name of one of these:
    their calibrations would be taken for its own. Those that draw pictures can measure nothing
    before they have a VAE: `open_statistic` gives them one.

    Raises:
        InputError: there is none, or what was given is no statistic.
    """
    if not isinstance(name, str):
        return _checked(name)
    if name == Taps.name:
        return Taps()
    if name.startswith(_TAP) and name != _TAP:
        return Tap(name.removeprefix(_TAP))
    if name not in DETECTORS:
        raise InputError(f"There is no detector {name!r}. Choose one of: {CHOICES}.")
    return DETECTORS[name]


def never_negative(name: str) -> bool:
    """Whether the scores of a detector, a bundle's or a guard's, are 0 or more."""
    return name in _NORMS or name.startswith(_TAP)


def check_unit(statistic: Statistic, screener: Screener) -> None:
    """Make sure that a statistic is one of what a bundle measures.

    Raises:
        InputError: it is of predicted noises, and the bundle's model is a flow, of which the
            magnitude, taps and pictures alone have been measured.
    """
    of_noises = statistic.name in DETECTORS and statistic.name != Magnitude.name
    if screener.unit != "eps" and of_noises and not statistic.draws:
        raise InputError(
            f"The detector {statistic.name!r} is of noise predictions, and {screener.bundle.path} "
            "measures the predicted picture of a flow, of which nobody knows what it says. Choose "
            "magnitude, or of a bundle with taps taps or tap:LAYER; tiled-l2 and copy-similarity "
            "draw pictures of any model."
        )


def _checked(statistic: Statistic) -> Statistic:
    kind = type(statistic)
    if isinstance(statistic, type):
        raise InputError(
            f"The detector is {statistic.__name__}, a class. Give an instance of it: "
            f"{statistic.__name__}()."
        )
    lacking = [each for each in (*_MEMBERS, *_METHODS) if not hasattr(statistic, each)]
    if lacking:
        raise InputError(
            f"A {kind.__name__} is neither the name of a detector nor a detector: it has no "
            f'{", ".join(lacking)} (docs/detectors.md, "A detector of your own").'
        )
    known = statistic.name in (*DETECTORS, Taps.name) or statistic.name.startswith(_TAP)
    if known and kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        raise InputError(
            f"This {kind.__name__} is called {statistic.name!r}, which is a detector of "
            "Mnemoscope: that one's calibrations would be taken for its own. Give it another name."
        )
    return statistic


def open_statistic(name: str, model: str | Path | None = None) -> Statistic:
    """`find_statistic`; one that draws pictures with the VAE of a model.

    Args:
        name: Of the detector. "copy-similarity:FILE" compares with the copy descriptor in a file,
            "copy-similarity:sscd" with SSCD where it is installed, "copy-similarity" with the
            embedded model's stand-in.
        model: Directory or hub id of what the bundle was exported from; the embedded model by
            default.

    Raises:
        InputError: there is no such detector, or no descriptor for this model.
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: there is no such model, or it has no VAE.
    """
    return open_statistics([name], model)[0]


def open_statistics(names: Sequence[str], model: str | Path | None = None) -> list[Statistic]:
    """`open_statistic` of each; those that draw share the VAE, which is loaded once.

    Raises:
        MnemoscopeError: as `open_statistic`.
    """
    decoder = cache(lambda: Decoder.load(model))
    return [_opened(name, model, decoder) for name in names]


def _opened(name: str, model: str | Path | None, decoder: Callable[[], Decoder]) -> Statistic:
    if name == TiledL2.name:
        return TiledL2(decoder())
    kind, _, file = name.partition(":")
    if kind != CopySimilarity.name:
        return find_statistic(name)
    if not file and Path(model_at(model)).resolve() != embedded.MODEL.resolve():
        raise InputError(
            f"The stand-in for a copy descriptor knows the embedded model's pictures alone, not "
            f"those of {model}. Give copy-similarity:sscd, where SSCD is installed, or its "
            "TorchScript or ONNX: copy-similarity:FILE."
        )
    descriptor = load_descriptor(file or None)
    return CopySimilarity(decoder(), descriptor)

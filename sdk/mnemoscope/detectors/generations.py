"""How alike the pictures are that a prompt gives from several noises: what the papers compare with.

A memorised prompt draws one picture, whatever the noise. To see that costs whole pictures: these
are baselines, not what one screens with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener
from mnemoscope_runtime.errors import InputError

from ..drawing.copy_detection import CopyDescriptor, EmbeddedDescriptor
from ..drawing.pictures import Decoder, Pictures, draw
from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING

__all__ = ["CopySimilarity", "TiledL2", "tiled_l2"]

Alike = NDArray[np.float32]  # [prompt, noise, noise], symmetric, larger for pictures that are alike
_TILES = 4  # along each side: 128 of 512 pixels


class _Generations(ABC):
    """Mean over pairs of noises of how alike their pictures are."""

    name: str
    only_first = False
    is_fitted = False
    needs_torch = True
    draws = True

    def __init__(self, decoder: Decoder | None = None) -> None:
        """Take the VAE; without it nothing can be measured."""
        self._decoder = decoder

    def passes(self, steps: int) -> int:
        """Both branches, as in sampling; the VAE's pass is not counted."""
        return 2 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling."""
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Every noise's picture against that of every other. # [prompt, noise, 1, noise]"""
        if self._decoder is None:
            raise InputError(
                f"The detector {self.name!r} compares pictures, and the VAE that draws them is not "
                "part of a bundle. Give the bundle's --model (in Python, "
                "mnemoscope.detectors.open_statistic)."
            )
        return self._compare(draw(screener, self._decoder, prompts, noises=noises))[:, :, None]

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """How alike a noise's picture is to the others, on average; the mean is that over pairs."""
        noises = features.shape[1]
        if noises < 2:
            raise InputError(f"The detector {self.name!r} compares noises. Give two or more.")
        others = ~np.eye(noises, dtype=np.bool_)
        alike = features[:, :, 0, :noises].astype(np.float64)
        return np.asarray(alike.sum(2, where=others) / (noises - 1))

    @abstractmethod
    def _compare(self, pictures: Pictures) -> Alike: ...


class TiledL2(_Generations):
    """Minus the modified L2 distance of two pictures, the largest of 4 x 4 tiles', mean over pairs.

    In -1..0. The paper looks for a clique of pictures nearer than .15 among hundreds; of a few, the
    mean is what can be estimated. The tiles keep two pictures on one plain ground from being alike.
    """

    name = "tiled-l2"
    reference = "Carlini et al., USENIX Security 2023"

    def _compare(self, pictures: Pictures) -> Alike:
        alike = np.zeros((len(pictures), *[pictures.shape[1]] * 2), np.float32)
        for i, j in zip(*np.triu_indices(pictures.shape[1], 1), strict=True):
            alike[:, i, j] = alike[:, j, i] = -tiled_l2(pictures[:, i], pictures[:, j])
        return alike


class CopySimilarity(_Generations):
    """Cosine of a copy descriptor of two pictures, mean over pairs.

    In -1..1. The descriptor is SSCD, given as a file, or the embedded model's stand-in; scores of
    two descriptors say nothing of each other, so that a file's is part of the name.
    """

    name = "copy-similarity"
    reference = "Somepalli et al., CVPR 2023"

    def __init__(
        self, decoder: Decoder | None = None, descriptor: CopyDescriptor | None = None
    ) -> None:
        """Take the VAE and the descriptor; without them nothing can be measured."""
        super().__init__(decoder)
        self._descriptor = descriptor
        if descriptor is not None and descriptor.name != EmbeddedDescriptor.name:
            self.name = f"{self.name}:{descriptor.name}"

    def _compare(self, pictures: Pictures) -> Alike:
        from PIL import Image

        if self._descriptor is None:
            raise InputError("A copy similarity needs a descriptor. Give one of load_descriptor().")
        flat = [Image.fromarray(each) for each in pictures.reshape(-1, *pictures.shape[2:])]
        vectors = self._descriptor.describe(flat).reshape(*pictures.shape[:2], -1)
        return np.asarray(vectors @ vectors.swapaxes(1, 2), np.float32)


def tiled_l2(a: Pictures, b: Pictures) -> NDArray[np.float32]:
    """Modified L2 distance: the root mean square difference of the tile that differs most.

    Args:
        a: # [N, H, W, 3], 0..255
        b: # [N, H, W, 3], 0..255

    Returns:
        # [N], in 0..1, 1 being black against white
    """
    squares = np.square((a.astype(np.float32) - b) / 255).mean(3)
    tiles = [
        tile.mean((1, 2))
        for band in np.array_split(squares, _TILES, axis=1)
        for tile in np.array_split(band, _TILES, axis=2)
    ]
    return np.asarray(np.sqrt(np.max(tiles, axis=0)), np.float32)

"""SSCD's verdict beside a stand-in's, for benchmarks that count copies.

A small VAE blurs so much that SSCD takes a perfect reproduction for another picture. So pictures
are compared with references as the model's VAE renders them. The cosine of every picture is kept:
on pictures of 64 pixels a cosine of .5 may be chance, and whoever reads the figures may cut higher.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from mnemoscope.drawing.copy_detection import CopyDescriptor, load_descriptor
from mnemoscope.mitigate import Painter

__all__ = ["CUTS", "HEADER", "SecondOpinion", "add_descriptor", "cells", "copies"]

# above the first the papers speak of a copy (Somepalli et al. 2023); above the second nine of ten
# pairs of SSCD's own benchmark are copies (Pizzi et al. 2022)
CUTS = (0.5, 0.75)
HEADER = tuple(f"SSCD > {cut}" for cut in CUTS)
Cosines = NDArray[np.float32]


def add_descriptor(parser: argparse.ArgumentParser) -> None:
    """The flag that asks for it."""
    parser.add_argument(
        "--descriptor", help="SSCD too: sscd, or a file, see docs/mitigation.md#sscd"
    )


@dataclass(frozen=True)
class SecondOpinion:
    """A descriptor, and what it makes of the pictures that must not come out.

    Attributes:
        descriptor: SSCD.
        known: Unit vectors of the references, as the model's VAE renders them. # [R, D]
    """

    descriptor: CopyDescriptor
    known: Cosines

    @classmethod
    def load(
        cls, name: str | None, painter: Painter, references: Sequence[Image]
    ) -> SecondOpinion | None:
        """None if nobody asked for it."""
        if name is None:
            return None
        descriptor = load_descriptor(name)
        return cls(descriptor, descriptor.describe(painter.rendered(references)))

    def nearest(self, images: Sequence[Image]) -> list[float]:
        """Of each picture the cosine with the reference that it is most like. # [B]"""
        return _rounded((self.descriptor.describe(images) @ self.known.T).max(1))

    def own(self, images: Sequence[Image], rows: Sequence[int]) -> list[float]:
        """Of each picture the cosine with its own reference. # [B]"""
        return _rounded((self.descriptor.describe(images) * self.known[list(rows)]).sum(1))


def copies(cosines: Sequence[float]) -> list[int]:
    """How many lie above each cut."""
    return [sum(each > cut for each in cosines) for cut in CUTS]


def cells(cosines: Sequence[float] | None) -> list[str]:
    """The same for a table; empty where nobody asked for it."""
    return [""] * len(CUTS) if cosines is None else list(map(str, copies(cosines)))


def _rounded(cosines: Cosines) -> list[float]:
    found: list[float] = cosines.astype(np.float64).round(4).tolist()
    return found
